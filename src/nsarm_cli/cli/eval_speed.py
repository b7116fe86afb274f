"""`nsarm eval --speed`: seconds for a picture by stage, memory and parameters (Table 2)."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsarm_cli.cli import console

if TYPE_CHECKING:
    import torch

    from nsarm_cli.cli.eval_model import EvaluatedModel
    from nsarm_cli.evaluation.pictures import PictureSet
    from nsarm_cli.evaluation.protocol import Protocol

WARMUP, REPEAT = 1, 3

INSIDE = (
    "From the file of the input to the file of the output, one picture at a time. The model is "
    "loaded before; its stage has the windows, all networks, sampling, blending and the colour "
    "correction. The text encoder is outside: prompts are encoded once, before the first picture."
)
"""What the figures contain."""

_PICTURE_STAGES = (
    "read the input",
    "enlarge as the protocol says",
    "model",
    "bring to the size judged",
    "write the output",
)


def measure_speed(
    model: "EvaluatedModel",
    picture_set: "PictureSet",
    protocol: "Protocol",
    device: "torch.device",
) -> dict[str, Any]:
    """Time the first picture of a set.

    Returns:
        What results.json and the report have under "speed".
    """
    import tempfile
    from pathlib import Path

    from nsarm_cli.benchmark.clock import Spread, time_laps
    from nsarm_cli.benchmark.families import subject_of
    from nsarm_cli.benchmark.memory import PeakMemory
    from nsarm_cli.evaluation.pictures import read_pair
    from nsarm_cli.evaluation.protocol import input_of, judged_size, to_judge
    from nsarm_cli.evaluation.published import published_speed
    from nsarm_cli.imaging.files import read_image, write_image

    item = picture_set.items[0]
    small, gt = read_pair(item)
    gt_size = None if gt is None else gt.size
    size = judged_size(small.size, gt_size, protocol)
    given = input_of(small, gt_size, protocol, item.name)
    upscaler = model.upscaler
    made = (given.width * upscaler.scale, given.height * upscaler.scale)
    with tempfile.TemporaryDirectory(prefix="nsarm-speed-") as folder:
        path = Path(folder, "output.png")

        def run(mark: "Any") -> None:
            lr = read_image(item.lr)
            mark()
            lr = input_of(lr, gt_size, protocol, item.name)
            mark()
            sr = upscaler.upscale(lr, seed=model.seed)
            mark()
            sr = to_judge(sr, size, protocol, item.name)
            mark()
            write_image(sr, path, overwrite=True)
            mark()

        memory = PeakMemory(device)
        with console.progress_bar(WARMUP + REPEAT) as bar:
            bar.begin(0, "speed: preparing")

            def on_run(done: int) -> None:
                bar.begin(done, f"speed: run {done} of {WARMUP + REPEAT}")

            laps = time_laps(run, device, warmup=WARMUP, repeat=REPEAT, on_run=on_run)
        peak = memory.read()
    subject = subject_of(upscaler.resolver)
    stages = [
        {"stage": name, "seconds": asdict(Spread.of(seconds))}
        for name, seconds in zip(_PICTURE_STAGES, zip(*laps, strict=True), strict=True)
    ]
    return {
        "model": model.name,
        "set": picture_set.name,
        "protocol": protocol.value,
        "input": list(small.size),
        "output": list(made),
        "judged": list(size),
        "precision": model.settings["precision"],
        "warmup": WARMUP,
        "repeat": REPEAT,
        "inside": INSIDE,
        "seconds": asdict(Spread.of([sum(run_laps) for run_laps in laps])),
        "stages": stages,
        "window": None if subject is None else _window(subject, device),
        "parameters": None if subject is None else subject.parameters,
        "peak_memory": peak,
        "peak_memory_kind": memory.kind,
        "published": [asdict(row) for row in published_speed()],
    }


def _window(subject: Any, device: "torch.device") -> dict[str, Any]:
    """Time the stages of the model in one window."""
    import torch

    from nsarm_cli.benchmark.clock import Spread, time_laps
    from nsarm_cli.runtime import window_generator

    side = subject.resolver.window
    lr = torch.rand(1, 3, side, side, generator=window_generator(0, 0)).mul(2).sub(1).to(device)
    with torch.inference_mode():
        laps = time_laps(
            lambda mark: subject.run(lr, [window_generator(0, 0)], mark),
            device,
            warmup=WARMUP,
            repeat=REPEAT,
            on_run=lambda _: None,
        )
    return {
        "side": side,
        "stages": [
            {"stage": stage.name, "seconds": asdict(Spread.of(seconds))}
            for stage, seconds in zip(subject.stages, zip(*laps, strict=True), strict=True)
        ],
    }

"""What running leanly on a processor saves: processor seconds and peak memory of a whole window.

    python benchmarks/lean_decoder.py [--preset tiny] [--threads 1] [--repeat 3]

Writes a model folder of the preset with random weights in float32, and takes a window from it,
256 -> 1024 pixels for `tiny` (autoencoder and transformation network of the 8B model's size, a
small transformer): once as the networks are defined, with all weights in memory to the end, and
once as `nsarm upscale` runs it, with `models.core.lean` and `weights.mapped`. Every run is a
process of its own; the two kinds take turns, and medians are printed. The sums of codes are
compared, and the two pictures.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file

from nsarm_cli.benchmark.families import build_subject, subject_of
from nsarm_cli.runtime import keep_freed_memory
from nsarm_cli.text.features import KEY
from nsarm_cli.weights.families import PROMPT_FILE, load_resolver

KINDS = ("as defined", "lean")
CPU = torch.device("cpu")


def write_model(preset: str, folder: Path) -> None:
    """Write a preset with random weights as a model folder."""
    subject = build_subject(preset, CPU, torch.float32)
    config = subject.resolver.config  # type: ignore[attr-defined]
    values = {"family": config.family, "config": config.to_dict()}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file(subject.model.state_dict(), folder / "model.safetensors")
    if getattr(config, "text_width", None) is not None:
        prompt = torch.randn(64, config.text_width, generator=torch.Generator().manual_seed(2))
        save_file({KEY: prompt}, folder / PROMPT_FILE)


def measure(folder: Path, kind: str, threads: int, picture: Path) -> dict[str, float]:
    """Take one window in this process, and keep the picture and the bits."""
    torch.set_num_threads(threads)
    with ExitStack() as changes:
        if kind == KINDS[0]:
            changes.enter_context(patch("nsarm_cli.weights.families.leave_after_use"))
        else:
            keep_freed_memory()
        resolver = load_resolver(str(folder), CPU, torch.float32)
    subject = subject_of(resolver)
    if subject is None:
        raise TypeError("this model has no known stages")
    if kind == KINDS[0]:
        for part in subject.model.modules():
            for name in ("forward", "finish"):  # what `make_lean` put on the object
                vars(part).pop(name, None)
    side = resolver.window
    lr = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    times: list[float] = []
    kept: dict[str, torch.Tensor] = {}
    began, wall = time.process_time(), time.perf_counter()
    subject.model.autoencoder.decoder.register_forward_pre_hook(
        lambda _, given: kept.update(feature=given[0].clone())
    )
    generators = [torch.Generator().manual_seed(0)]
    kept["sr"] = subject.run(lr, generators, lambda: times.append(time.process_time()))
    save_file(kept, picture)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "processor": times[-1] - began,
        "decoder": times[-1] - times[-2],
        "seconds": time.perf_counter() - wall,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        kind, folder, picture = args.child
        if kind == "write":
            write_model(args.preset, Path(folder))
        else:
            print(json.dumps(measure(Path(folder), kind, args.threads, Path(picture))))
        return
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in args.kinds}
    command = [sys.executable, __file__, "--preset", args.preset, "--threads", str(args.threads)]

    def run(kind: str) -> str:
        # Also writing is another's work: a process begins with the peak of the one that starts it.
        called = [*command, "--child", kind, folder, f"{folder}/{kind}.safetensors"]
        done = subprocess.run(called, capture_output=True, text=True, check=True)  # noqa: S603
        return done.stdout

    with tempfile.TemporaryDirectory() as folder:
        run("write")
        for _ in range(args.repeat):
            for kind in args.kinds:
                runs[kind].append(json.loads(run(kind)))
        results = [load_file(f"{folder}/{kind}.safetensors") for kind in args.kinds]
    print(f"{'':12} {'whole, s':>18} {'decoder, s':>18} {'wall, s':>18} {'peak, GB':>9}")
    for kind in args.kinds:
        cells = [spread([run[key] for run in runs[kind]]) for key in COLUMNS]
        peak = max(run["peak"] for run in runs[kind])
        print(f"{kind:12} " + " ".join(f"{cell:>18}" for cell in cells) + f" {peak:9.2f}")
    if len(results) == len(KINDS):
        plain, lean = results
        difference = float((plain["sr"] - lean["sr"]).abs().max()) * 127.5
        print(f"sum of codes equal: {torch.equal(plain['feature'], lean['feature'])}")
        print(f"largest difference between the pictures, of 255: {difference:.5f}")


COLUMNS = ("processor", "decoder", "seconds")


def spread(values: list[float]) -> str:
    """Median, and least and most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()

"""The measurement: every stage of one batch of windows, beside its floor."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nsarm_cli.benchmark.clock import Spread, time_laps
from nsarm_cli.benchmark.families import META, build_subject
from nsarm_cli.benchmark.memory import PeakMemory
from nsarm_cli.benchmark.roofline import Roofline, measure_roofline
from nsarm_cli.benchmark.work import Work, count_work
from nsarm_cli.errors import DeviceError
from nsarm_cli.models.interface import SuperResolver
from nsarm_cli.runtime import window_generator
from nsarm_cli.shortage import told_apart

COLOUR = "colour"
"""Name of the stage after the model's own."""

Correct = Callable[[Tensor, Tensor, str], Tensor]
"""Colour correction: (sr, lr, method) to sr."""


@dataclass(frozen=True)
class StageResult:
    """One stage, or all together.

    Attributes:
        name: of the stage.
        tokens: that the transformer processes, all windows together.
        flop: of matrix products, convolutions and attention.
        bytes: of weights, cache and earlier results that it must read.
        seconds: measured.
        floor_seconds: what `flop` and `bytes` take at the measured rates, whichever is longer;
            in the total the sum of the stages'.
        ratio: median time to floor.
    """

    name: str
    tokens: int
    flop: int
    bytes: int
    seconds: Spread
    floor_seconds: float
    ratio: float


@dataclass(frozen=True)
class StagesReport:
    """One measurement of a preset with random weights.

    Attributes:
        model: name of the preset.
        precision: of its convolutions and block weights.
        batch: windows at once.
        window: side of one, in pixels of the input.
        warmup: runs before those that count.
        repeat: runs that count.
        parameters: learned numbers.
        weight_bytes: their memory.
        roofline: measured rates of the device.
        stages: in the order of the run; the last is the colour correction.
        total: all stages, run by run.
        peak_memory: bytes, or None where the system does not tell.
        peak_memory_kind: what that counts.
    """

    model: str
    precision: str
    batch: int
    window: int
    warmup: int
    repeat: int
    parameters: int
    weight_bytes: int
    roofline: Roofline
    stages: tuple[StageResult, ...]
    total: StageResult
    peak_memory: int | None
    peak_memory_kind: str


def measure_stages(
    model: str,
    device: torch.device,
    dtype: torch.dtype,
    correct: Correct,
    *,
    batch: int,
    warmup: int,
    repeat: int,
    on_run: Callable[[int], None],
    prepare: Callable[[SuperResolver], None] = lambda _: None,
) -> StagesReport:
    """Measure a preset with random weights.

    Args:
        model: name of the preset.
        device: where it runs.
        dtype: of its convolutions and block weights.
        correct: the colour correction, which is timed as the last stage.
        batch: windows at once.
        warmup: runs before those that count.
        repeat: runs that count.
        on_run: told the number of finished runs, warm-up included.
        prepare: what is done to the model before the first run, such as compiling it.

    Raises:
        WeightsError: no preset has this name.
        DeviceError: the device is out of memory.
    """
    counted = count_work(build_subject(model, META, dtype), batch)
    try:
        with told_apart():
            roofline = measure_roofline(device, dtype)
            subject = build_subject(model, device, dtype)
            resolver = subject.resolver
            prepare(resolver)
            lr = _picture(batch, resolver.window).to(device)

            def run(mark: Callable[[], None]) -> None:
                generators = [window_generator(0, index) for index in range(batch)]
                sr = subject.run(lr, generators, mark)
                correct(sr, lr, resolver.color)
                mark()

            memory = PeakMemory(device)
            laps = time_laps(run, device, warmup=warmup, repeat=repeat, on_run=on_run)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(
            f"{model} does not fit {device} with a batch of {batch}; "
            "lower --batch or --precision, or take another --model or --device"
        ) from error
    # The correction multiplies no matrices, but it must read both pictures.
    work = (*counted, Work(0, lr.nbytes * (1 + resolver.scale**2)))
    tokens = [batch * stage.tokens for stage in subject.stages] + [0]
    names = [stage.name for stage in subject.stages] + [COLOUR]
    stages = tuple(
        _result(name, count, done, Spread.of(seconds), roofline.floor(done))
        for name, count, done, seconds in zip(
            names, tokens, work, zip(*laps, strict=True), strict=True
        )
    )
    total = _result(
        "total",
        sum(tokens),
        sum(work, Work(0, 0)),
        Spread.of([sum(run_laps) for run_laps in laps]),
        sum(stage.floor_seconds for stage in stages),
    )
    return StagesReport(
        model=model,
        precision=str(dtype).removeprefix("torch."),
        batch=batch,
        window=resolver.window,
        warmup=warmup,
        repeat=repeat,
        parameters=subject.parameters,
        weight_bytes=subject.weight_bytes,
        roofline=roofline,
        stages=stages,
        total=total,
        peak_memory=memory.read(),
        peak_memory_kind=memory.kind,
    )


def _picture(batch: int, side: int) -> Tensor:
    """Noise in [-1, 1], "b 3 side side": the time of no stage depends on what a picture shows."""
    noise = torch.rand(batch, 3, side, side, generator=window_generator(0, 0))
    return noise * 2 - 1


def _result(name: str, tokens: int, work: Work, seconds: Spread, floor: float) -> StageResult:
    return StageResult(name, tokens, work.flop, work.bytes, seconds, floor, seconds.median / floor)

"""Three real steps of a run on made-up pictures, to know how long they take here."""

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from nsarm_cli.training.config import RunConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.distributed import Ranks
from nsarm_cli.training.economy import choose_attention, economise
from nsarm_cli.training.rehearsal import BuildStage, quiet
from nsarm_cli.training.step import Stepper
from nsarm_cli.training.templates import crop_size
from nsarm_cli.weights.folder import AnyConfig, AnyModel

STEPS = 3


@dataclass(frozen=True)
class Trial:
    """How long an update took.

    Attributes:
        seconds: median of the steps, after one that is not counted.
        memory: most bytes on the GPU; None elsewhere.
    """

    seconds: float
    memory: int | None


def try_steps(
    config: RunConfig, model: AnyModel, build: BuildStage, device: torch.device, share: int
) -> Trial:
    """Do the updates of one process; nothing is kept but in the model.

    Args:
        config: of the run.
        model: of any weights that are fit to train, on the processor.
        build: makes its stage.
        device: where to compute.
        share: crops of the process per update.
    """
    config = dataclasses.replace(quiet(config), batch=share)
    stage = build(config, model, device)
    choose_attention(stage.trained, config.attention, device)
    economise(stage.trained, config.recompute, compiled=config.compile)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        stepper = Stepper(stage, config, Path(folder), Ranks(device))
        batch = _batch(config, model.config).to(device)
        for _ in range(1 + STEPS):
            began = time.perf_counter()
            stepper.advance(batch)  # ends with numbers on the processor, so the device is done
            seconds.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Trial(statistics.median(seconds[1:]), memory)


def _batch(config: RunConfig, model: AnyConfig) -> Batch:
    ratio = config.templates[0]
    height, width = crop_size(model, ratio, config.crop)
    generator = torch.Generator().manual_seed(config.seed)

    def pictures(*size: int) -> torch.Tensor:
        return torch.rand(config.batch, 3, *size, generator=generator) * 2 - 1

    low = pictures(height // model.scale, width // model.scale) if config.degrades else None
    return Batch(pictures(height, width), low, ratio)

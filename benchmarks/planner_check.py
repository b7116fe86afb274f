"""Compare the planner's figures with what real processes take on this machine's processor.

    python benchmarks/planner_check.py

Each model runs one window in a process of its own, in float32 and bf16, with random weights in its
own memory. Printed are the planner's largest sum of weights, cache and activations, and how far the
process's largest resident memory rose above that of the loaded libraries. The "scaled" model is
NSARM-8B with its own autoencoder, a narrower and shorter transformer, and smaller windows.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys

import psutil
import torch

from nsarm_cli.benchmark import families
from nsarm_cli.memory.estimate import estimate
from nsarm_cli.memory.settings import MemorySettings
from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.config import NSARM_8B, NSARM_NANO, NsarmConfig
from nsarm_cli.models.nsarm.memory import memory_needs
from nsarm_cli.models.nsarm.transformation import TransformationConfig

MIB = 2**20


def scaled() -> NsarmConfig:
    """Windows of 64 instead of 256 pixels, 12 blocks of width 1024, 3 transformation branches."""
    whole = NSARM_8B.transformation
    assert isinstance(whole, TransformationConfig)  # noqa: S101  (as every preset of this shape)
    return dataclasses.replace(
        NSARM_8B,
        name="scaled",
        window=64,
        sides=(1, 2, 4, 6, 8, 12, 16),
        transformation=dataclasses.replace(whole, side=8, branches=whole.branches[:3]),
        transformer=TransformerConfig(1024, 12, 8, 56, 112, scales=15, cross=True),
        overlap=8,
    )


CONFIGS = {NSARM_NANO.name: NSARM_NANO, "scaled": scaled()}


def work(name: str, dtype: torch.dtype, batch: int) -> None:
    """Run in this process, and print how far its memory rose."""
    families.NSARM_PRESETS[name] = CONFIGS[name]
    torch.nn.functional.linear(torch.ones(8, 8), torch.ones(8, 8))
    before = psutil.Process().memory_info().rss
    subject = families.build_subject(name, torch.device("cpu"), dtype)
    resolver = subject.resolver
    lr = torch.zeros(batch, 3, resolver.window, resolver.window)
    generators = [torch.Generator().manual_seed(i) for i in range(batch)]
    with torch.inference_mode():
        resolver.resolve_together(lr, generators, resolver.sampling)  # type: ignore[attr-defined]
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(peak - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        name, dtype, batch = given.part
        work(name, getattr(torch, dtype), int(batch))
        return
    print("model        type      batch   weights   planned   taken, MiB   taken / planned")
    for name, config in CONFIGS.items():
        for dtype in ("float32", "bfloat16"):
            for batch in (1, 4):
                settings = MemorySettings(getattr(torch, dtype), batch)
                planned = estimate(memory_needs(config), settings)
                command = [sys.executable, __file__, "--part", name, dtype, str(batch)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
                taken = int(done.stdout)
                print(
                    f"{name:12} {dtype:9} {batch:5} {planned.moments[0].weights / MIB:9.0f} "
                    f"{planned.peak / MIB:9.0f} {taken / MIB:12.0f} {taken / planned.peak:12.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

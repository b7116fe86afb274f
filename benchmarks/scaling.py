"""Tokens per second of training with 1, 2 and 4 processes on this machine's processor.

    python benchmarks/scaling.py [--model nsarm-nano] [--batch 4] [--steps 2] [--processes 1 2 4]

Starts `torchrun` for each number of processes. All make the same updates of stage 2 of a model
with fresh weights on made-up pictures, so the batch stays and the share of each process shrinks.
Besides the rate it prints the processor time of all processes per thousand tokens, which does not
depend on what else the machine is doing: what more processes add to it is the price of working
together. Prints JSON lines.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from nsarm_cli.models.nsarm.config import PRESETS
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.config import Stage2Config
from nsarm_cli.training.data import Batch
from nsarm_cli.training.distributed import joined, part_of_batch
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.runner import build_stage
from nsarm_cli.training.step import Stepper


def measure(name: str, batch: int, steps: int) -> None:
    """Be one of the processes; the first prints the result."""
    torch.set_num_threads(1)
    model = PRESETS[name]
    side = model.window * model.scale
    config = Stage2Config(crop=side, batch=batch, precision="fp32", warmup=0)
    with joined("cpu") as (ranks, _), tempfile.TemporaryDirectory() as folder:
        first, size = part_of_batch(batch, 1, ranks)
        torch.manual_seed(0)
        stage = build_stage(config, initialise(NsarmModel(model)), ranks.device)
        stepper = Stepper(stage, config, Path(folder), ranks)
        generator = torch.Generator().manual_seed(0)
        hr = torch.rand(batch, 3, side, side, generator=generator) * 2 - 1
        lr = torch.rand(batch, 3, model.window, model.window, generator=generator) * 2 - 1
        whole = Batch(hr, lr, seeds=torch.arange(batch))
        part = dataclasses.replace(
            whole,
            hr=hr[first : first + size],
            lr=lr[first : first + size],
            seeds=torch.arange(first, first + size),
        )
        stepper.advance(part)
        wall, busy = [], []
        for _ in range(steps):
            began, spent = time.perf_counter(), time.process_time()
            loss = stepper.advance(part).values["loss"]
            wall.append(time.perf_counter() - began)
            busy.append(time.process_time() - spent)
        spent = sum(ranks.collect(sum(busy) / steps))
        tokens = batch * model.schedule.total
        if ranks.is_first:
            found = {
                "processes": ranks.world,
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                "tokens_per_second": tokens / statistics.median(wall),
                "processor_seconds_per_1000_tokens": spent / tokens * 1000,
                "loss": loss,
            }
            print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nsarm-nano", choices=PRESETS)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        measure(given.model, given.batch, given.steps)
        return
    for count in given.processes:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        options = [f"--model={given.model}", f"--batch={given.batch}", f"--steps={given.steps}"]
        subprocess.run(  # noqa: S603  (its own file)
            [*launcher, f"--nproc-per-node={count}", __file__, *options],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


if __name__ == "__main__":
    main()

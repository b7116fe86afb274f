"""What torchrun starts in the tests: several `nsarm` commands, one after the other, with faults.

    in_many.py COMMANDS.json

The file lists, per command, its arguments and perhaps a fault, `[kind, rank, step]`: in that step
of that process, at its first start, "stop" sends SIGTERM to it alone and "kill" ends it between
the gradient and the update.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from nsarm_cli.cli.main import main
from nsarm_cli.training.distributed import meet
from nsarm_cli.training.step import Stepper

RANK = int(os.environ["RANK"])
IS_FIRST_START = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"


def arrange(kind: str, rank: int, step: int) -> None:
    advance, clip = Stepper.advance, torch.nn.utils.clip_grads_with_norm_
    now = [-1]

    def advance_with_fault(stepper, batch, **options):
        now[0] = stepper.step
        if kind == "stop" and stepper.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(stepper, batch, **options)

    def clip_with_fault(*arguments):
        if kind == "kill" and now[0] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return clip(*arguments)

    if rank == RANK and IS_FIRST_START:
        Stepper.advance = advance_with_fault
        torch.nn.utils.clip_grads_with_norm_ = clip_with_fault


meet("gloo")  # once: torchrun's meeting place does not serve a second time
for command in json.loads(Path(sys.argv[1]).read_text()):
    before = Stepper.advance, torch.nn.utils.clip_grads_with_norm_
    if command.get("fault"):
        arrange(*command["fault"])
    code = main(command["arguments"])
    Stepper.advance, torch.nn.utils.clip_grads_with_norm_ = before
    if code:
        sys.exit(code)
dist.destroy_process_group()

"""Which attention is quickest for each pass of a preset, on this device.

    python benchmarks/attention.py [--preset nsarm-8b] [--batch 1] [--repeat 20]

Times PyTorch's attention with each of its backends at the shapes of the prefill's scales and of
every sampling pass, in bf16, and prints milliseconds per call and TFLOP/s. Backends that refuse a
shape are left out. Then a pass of training over all scales at once, forward and backward, scale by
scale and with FlexAttention, which learns on CUDA GPUs alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from nsarm_cli.models.core.attention import Attend, AttentionPass, scale_by_scale
from nsarm_cli.models.core.flex import FlexAttention
from nsarm_cli.models.nsarm.config import PRESETS

BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


def milliseconds(call: Callable[[], object], repeat: int) -> float:
    """Median of single calls, after two that do not count."""
    taken = []
    for _ in range(repeat + 2):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken[2:])


def time_training(asked: AttentionPass, repeat: int) -> None:
    """Print a line for each way through all scales at once, with gradients."""
    plans = {"scale by scale": scale_by_scale}
    if asked.device.type == "cuda":
        plans["FlexAttention"] = FlexAttention()
    shape = (asked.batch, asked.heads, sum(asked.lengths), asked.head_width)
    tensors = [
        torch.randn(shape, device=asked.device).to(asked.dtype).requires_grad_() for _ in range(3)
    ]
    for name, plan in plans.items():
        attend = plan(asked)

        def step(attend: Attend = attend) -> None:
            result = attend(*tensors)
            torch.autograd.grad(result, tensors, torch.ones_like(result))

        taken = milliseconds(step, repeat)
        print(json.dumps({"training": name, "tokens": shape[2], "ms": taken}))


def main() -> None:
    """Print a line of JSON per shape and backend."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="nsarm-8b", choices=sorted(PRESETS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=20)
    args = parser.parse_args()
    config = PRESETS[args.preset]
    heads, schedule = config.transformer.heads, config.schedule
    width = config.transformer.width // heads
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for begin, length in zip(schedule.offsets[:-1], schedule.lengths, strict=True):
        seen = begin + length
        queries = torch.randn(args.batch, heads, length, width, device=device).bfloat16()
        keys = torch.randn(args.batch, heads, seen, width, device=device).bfloat16()
        for backend in BACKENDS:
            with sdpa_kernel(backend):
                try:
                    taken = milliseconds(
                        partial(F.scaled_dot_product_attention, queries, keys, keys, scale=1.0),
                        args.repeat,
                    )
                except RuntimeError:  # this backend does not do this on this device
                    continue
            flop = 4 * args.batch * heads * length * seen * width
            line = {"queries": length, "keys": seen, "backend": backend.name, "ms": taken}
            print(json.dumps(line | {"TFLOP/s": flop / taken / 1e9}))
    everything = AttentionPass(
        *(args.batch, heads, width, schedule.lengths, 0),
        torch.device(device),
        torch.bfloat16,
    )
    time_training(everything, args.repeat)


if __name__ == "__main__":
    main()

"""Which attention is quickest for each pass of a preset, on this device.

    python benchmarks/attention.py [--preset nsarm-8b] [--batch 1] [--repeat 20]

Times PyTorch's attention with each of its backends at the shapes of the prefill's scales and of
every sampling pass, in bf16, and prints milliseconds per call and TFLOP/s. Backends that refuse a
shape are left out.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from nsarm_cli.models.nsarm.config import PRESETS

BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


def milliseconds(queries: torch.Tensor, keys: torch.Tensor, repeat: int) -> float:
    """Median of single calls, after two that do not count."""
    taken = []
    for _ in range(repeat + 2):
        began = time.perf_counter()
        F.scaled_dot_product_attention(queries, keys, keys, scale=1.0)
        if queries.is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken[2:])


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
                    taken = milliseconds(queries, keys, args.repeat)
                except RuntimeError:  # this backend does not do this on this device
                    continue
            flop = 4 * args.batch * heads * length * seen * width
            line = {"queries": length, "keys": seen, "backend": backend.name, "ms": taken}
            print(json.dumps(line | {"TFLOP/s": flop / taken / 1e9}))


if __name__ == "__main__":
    main()

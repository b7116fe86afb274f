"""What running the decoder leanly saves: processor seconds and peak memory of a whole window.

    python benchmarks/lean_decoder.py [--preset tiny] [--threads 1] [--repeat 3]

Takes a window of the preset, 256 -> 1024 pixels for `tiny` (autoencoder and transformation network
of the 8B model's size, a small transformer), in float32 with random weights, once as the networks
are defined and once with `models.core.lean`. Every run is a process of its own; the two kinds take
turns, and medians are printed. The decoder's input is the same bits, and its two pictures are
compared.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from nsarm_cli.benchmark.families import build_subject

KINDS = ("as defined", "lean")


def measure(preset: str, kind: str, threads: int, picture: Path) -> dict[str, float]:
    """Take one window in this process, and keep the picture."""
    torch.set_num_threads(threads)
    subject = build_subject(preset, torch.device("cpu"), torch.float32)
    if kind == KINDS[0]:
        for part in subject.model.modules():
            for name in ("forward", "finish"):  # what `make_lean` put on the object
                vars(part).pop(name, None)
    side = subject.resolver.window
    lr = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    times: list[float] = []
    began, wall = time.process_time(), time.perf_counter()
    generators = [torch.Generator().manual_seed(0)]
    sr = subject.run(lr, generators, lambda: times.append(time.process_time()))
    save_file({"sr": sr}, picture)
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
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        kind, picture = args.child
        print(json.dumps(measure(args.preset, kind, args.threads, Path(picture))))
        return
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.repeat):
            for kind in KINDS:
                picture = str(Path(folder) / f"{kind}.safetensors")
                command = [sys.executable, __file__, "--preset", args.preset]
                command += ["--threads", str(args.threads), "--child", kind, picture]
                done = subprocess.run(  # noqa: S603  (this file)
                    command, capture_output=True, text=True, check=True
                )
                runs[kind].append(json.loads(done.stdout))
        difference = compare(*(Path(folder) / f"{kind}.safetensors" for kind in KINDS))
    print(f"{'':12} {'whole, s':>18} {'decoder, s':>18} {'wall, s':>18} {'peak, GB':>9}")
    for kind in KINDS:
        cells = [spread([run[key] for run in runs[kind]]) for key in COLUMNS]
        peak = max(run["peak"] for run in runs[kind])
        print(f"{kind:12} " + " ".join(f"{cell:>18}" for cell in cells) + f" {peak:9.2f}")
    print(f"largest difference between the pictures, of 255: {difference:.5f}")


COLUMNS = ("processor", "decoder", "seconds")


def spread(values: list[float]) -> str:
    """Median, and least and most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def compare(first: Path, second: Path) -> float:
    """Largest difference between two pictures, in levels of 8 bits."""
    a, b = (load_file(path)["sr"] for path in (first, second))
    return float((a - b).abs().max()) * 127.5


if __name__ == "__main__":
    main()

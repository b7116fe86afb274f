"""How fast weights come from the disk to a device, beside reading the file alone.

    python benchmarks/loading.py [--preset wide] [--device auto] [--folder DIR]

Writes the preset with random weights in bf16 as a model folder (`wide` has the 8B model's width,
two blocks and 2 GB), drops it from the system's cache where that is allowed, and loads it.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from nsarm_cli.benchmark.families import build_subject
from nsarm_cli.runtime import choose_device
from nsarm_cli.training.model_folder import write_model
from nsarm_cli.weights.folder import load_model


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="wide")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    device, _ = choose_device(args.device)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder)
        model = build_subject(args.preset, torch.device("cpu"), torch.bfloat16).model
        write_model(model, path)
        del model
        files = sorted(path.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        report = {"device": str(device), "GB": size / 1e9}
        for cache in ("cold", "warm"):
            forget(files, really=cache == "cold")
            began = time.perf_counter()
            load_model(path, device, torch.bfloat16)
            if device.type == "cuda":
                torch.cuda.synchronize()
            report[f"{cache} GB/s"] = size / 1e9 / (time.perf_counter() - began)
        forget(files, really=True)
        began = time.perf_counter()
        for file in files:
            with file.open("rb", buffering=0) as stream:
                while stream.read(1 << 24):
                    pass
        report["reading alone, cold GB/s"] = size / 1e9 / (time.perf_counter() - began)
        print(json.dumps(report))


def forget(files: list[Path], *, really: bool) -> None:
    """Ask the system to drop files from its cache."""
    if not really or not hasattr(os, "posix_fadvise"):
        return
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()

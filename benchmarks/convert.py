"""Speed and peak memory of the converter, on a scaled NSARM in its authors' file format.

    python benchmarks/convert.py --depth 2 8

For each depth a model with few, narrower blocks than NSARM-8B is written as a pickle of tensors, as
its authors publish it, in a temporary folder. A process of its own converts it to bf16, from the
digest to the finished folder, and another one to float32. Prints gigabytes (10^9 bytes) read,
seconds of the clock and of the processor, GB/s of both, and how far the largest resident memory
rose above that of the loaded libraries.
"""

import argparse
import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from torch import Tensor

from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.config import NSARM_8B, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import TransformationConfig
from nsarm_cli.weights.convert import convert
from nsarm_cli.weights.keymap import autoencoder_to_upstream, transformer_to_upstream
from nsarm_cli.weights.originals import find_originals
from nsarm_cli.weights.recipe import Recipe
from nsarm_cli.weights.recipes import nsarm_recipe
from nsarm_cli.weights.trust import Trust

WIDTH = 1536


def scaled(depth: int) -> NsarmConfig:
    """NSARM-8B with fewer and narrower blocks, and its first two transformation branches."""
    whole = NSARM_8B.transformation
    assert isinstance(whole, TransformationConfig)  # noqa: S101  (as every preset of this shape)
    return dataclasses.replace(
        NSARM_8B,
        name="scaled",
        transformer=TransformerConfig(WIDTH, depth, 12, 56, 112, scales=15, cross=True),
        transformation=dataclasses.replace(whole, branches=whole.branches[:2]),
    )


def publish(config: NsarmConfig, folder: Path) -> list[Path]:
    """Write the transformer and the autoencoder, of ordinary numbers."""
    with torch.device("meta"):
        model = NsarmModel(config)
    model.to_empty(device="cpu")
    tensors = model.state_dict()
    for tensor in tensors.values():
        tensor.copy_(torch.linspace(-1, 1, tensor.numel()).view(tensor.shape))
    paths = [folder / "NSARM.pth", folder / "vae.pth"]
    nested: dict[str, dict[str, dict[str, Tensor]]] = {
        "trainer": {"gpt_fsdp": transformer_to_upstream(tensors, config, "model")}
    }
    torch.save(nested, paths[0])
    torch.save({"vae": autoencoder_to_upstream(tensors, config, "model")}, paths[1])
    return paths


def recipe(config: NsarmConfig) -> Recipe:
    """Without the text encoder, which is converted in the same way."""
    return dataclasses.replace(nsarm_recipe(config), text_width=None, prompt=None)


def work(depth: int, folder: Path, dtype: torch.dtype) -> None:
    """Convert in this process, and print seconds and bytes."""
    before = psutil.Process().memory_info().rss
    sources = find_originals([folder / "NSARM.pth", folder / "vae.pth"])
    target = folder / "converted"
    began, busy = time.perf_counter(), time.process_time()
    convert(recipe(scaled(depth)), sources, target, trust=Trust(unverified=True), dtype=dtype)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({"seconds": seconds, "busy": busy, "rise": peak - before}))


def alone(depth: int, *arguments: str) -> str:
    """Run a part of this script in a process of its own, whose memory is then its own."""
    command = [sys.executable, __file__, "--depth", str(depth), "--part", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, nargs="+", default=[2, 8], help="blocks of the model")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        folder, *dtype = given.part
        if dtype:
            work(given.depth[0], Path(folder), getattr(torch, dtype[0]))
        else:
            publish(scaled(given.depth[0]), Path(folder))
        return
    print("blocks    GB  to        seconds    GB/s   processor seconds    GB/s   rise in MB")
    for depth in given.depth:
        with tempfile.TemporaryDirectory() as folder:
            alone(depth, folder)
            size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e9
            for dtype in ("bfloat16", "float32"):
                # What was just written would otherwise still be on its way to the disk.
                os.sync()
                found = json.loads(alone(depth, folder, dtype))
                seconds, busy, rise = found["seconds"], found["busy"], found["rise"] / 1e6
                print(
                    f"{depth:6} {size:5.2f}  {dtype:8} {seconds:8.1f} {size / seconds:7.3f} "
                    f"{busy:19.1f} {size / busy:7.3f} {rise:12.0f}",
                    flush=True,
                )
                shutil.rmtree(Path(folder) / "converted")


if __name__ == "__main__":
    main()

"""What storing nsarm-nano's block matrices in fewer bits costs: bits that change, and distance.

Run: PYTHONPATH=src python benchmarks/quantize_cost.py [--device cuda] PHOTO...

Each photograph's middle window of 64 x 64 is enlarged greedily, as stored and quantised: on a
processor in fp32, on a GPU in bf16, against fp32. "int4" is simulated on a processor: the matrices
are rounded in groups of 128 as int4 rounds them, since its arithmetic exists on CUDA GPUs alone.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

from nsarm_cli.imaging.rgb import to_rgb
from nsarm_cli.imaging.tensors import to_tensor
from nsarm_cli.memory.quantize import quantize_blocks
from nsarm_cli.memory.settings import Quantize
from nsarm_cli.models.interface import Sampling
from nsarm_cli.weights.families import load_resolver

WINDOW = 64


def simulate_int4(blocks: nn.ModuleList) -> None:
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(128))
    for block in blocks:
        quantize_(block, config)


def enlarge(
    windows: Tensor, change: Callable[[nn.ModuleList], None], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Bits of the sampled scales and pictures, of all windows."""
    resolver = load_resolver("nsarm-nano", windows.device, dtype)
    change(resolver.transformer.blocks)
    bits, pictures = [], []
    for window in windows:
        trace: dict[str, Tensor] = {}
        generators = [torch.Generator()]
        with torch.inference_mode():
            picture = resolver.resolve(window[None], generators, Sampling(0.0), trace=trace)
        sampled = {name.removeprefix("logits.") for name in trace if name.startswith("logits.")}
        bits.append(torch.cat([trace[f"bits.{k}"].flatten() for k in sorted(sampled)]))
        pictures.append(picture.cpu())
    return torch.stack(bits), torch.cat(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    device, windows = torch.device(args.device), []
    for name in args.photos:
        whole = to_tensor(to_rgb(Image.open(Path(name))))
        top, left = ((side - WINDOW) // 2 for side in whole.shape[1:])
        windows.append(whole[:, top : top + WINDOW, left : left + WINDOW])
    batch = torch.stack(windows).to(device)
    bits, pictures = enlarge(batch, lambda _: None, torch.float32)
    dtype, kinds = torch.float32, {"int4 (simulated)": simulate_int4}
    if device.type == "cuda":
        dtype, kinds = torch.bfloat16, {"as it is": lambda _: None}
        kinds["int4"] = partial(quantize_blocks, kind=Quantize.INT4, device=device)
    for kind in (Quantize.INT8, Quantize.FP8):
        kinds[kind.value] = partial(quantize_blocks, kind=kind, device=device)
    print(f"{device}, {str(dtype).removeprefix('torch.')}")
    print(f"{len(windows)} windows; bits changed of the sampled scales, PSNR to fp32")
    for kind, change in kinds.items():
        other_bits, other = enlarge(batch, change, dtype)
        share = (bits != other_bits).float().mean().item()
        error = ((pictures - other) / 2).square().mean((1, 2, 3))
        psnr = (-10 * error.log10()).mean().item()
        print(f"{kind:18} {share:8.3%} {psnr:7.2f} dB")


if __name__ == "__main__":
    main()

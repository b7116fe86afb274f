"""What storing nsarm-nano's block matrices in fewer bits costs: bits that change, and distance.

Run: PYTHONPATH=src python benchmarks/quantize_cost.py PHOTO...

Each photograph's middle window of 64 x 64 is enlarged greedily at fp32, as stored and quantised.
"int4" is simulated: the matrices are rounded in groups of 128 as int4 rounds them, since its
arithmetic exists on CUDA GPUs alone.
"""

import sys
from collections.abc import Callable
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

CPU = torch.device("cpu")
WINDOW = 64


def simulate_int4(blocks: nn.ModuleList) -> None:
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(128))
    for block in blocks:
        quantize_(block, config)


def enlarge(windows: Tensor, change: Callable[[nn.ModuleList], None]) -> tuple[Tensor, Tensor]:
    """Bits of the sampled scales and pictures, of all windows."""
    resolver = load_resolver("nsarm-nano", CPU, torch.float32)
    change(resolver.transformer.blocks)
    bits, pictures = [], []
    for window in windows:
        trace: dict[str, Tensor] = {}
        generators = [torch.Generator()]
        with torch.inference_mode():
            picture = resolver.resolve(window[None], generators, Sampling(0.0), trace=trace)
        sampled = {name.removeprefix("logits.") for name in trace if name.startswith("logits.")}
        bits.append(torch.cat([trace[f"bits.{k}"].flatten() for k in sorted(sampled)]))
        pictures.append(picture)
    return torch.stack(bits), torch.cat(pictures)


def main() -> None:
    windows = []
    for name in sys.argv[1:]:
        whole = to_tensor(to_rgb(Image.open(Path(name))))
        top, left = ((side - WINDOW) // 2 for side in whole.shape[1:])
        windows.append(whole[:, top : top + WINDOW, left : left + WINDOW])
    batch = torch.stack(windows)
    bits, pictures = enlarge(batch, lambda _: None)
    kinds = {
        "int8": lambda blocks: quantize_blocks(blocks, Quantize.INT8, CPU),
        "fp8": lambda blocks: quantize_blocks(blocks, Quantize.FP8, CPU),
        "int4 (simulated)": simulate_int4,
    }
    print(f"{len(windows)} windows; bits changed of the sampled scales, PSNR to fp32")
    for kind, change in kinds.items():
        other_bits, other = enlarge(batch, change)
        share = (bits != other_bits).float().mean().item()
        error = ((pictures - other) / 2).square().mean((1, 2, 3))
        psnr = (-10 * error.log10()).mean().item()
        print(f"{kind:18} {share:8.3%} {psnr:7.2f} dB")


if __name__ == "__main__":
    main()

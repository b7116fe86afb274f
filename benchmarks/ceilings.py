"""Find where a model loses: what would it reach with the true bits, or with another input?

    python benchmarks/ceilings.py --hr RealSR/test_HR --lr RealSR/test_LR --every 5 \
        --dists dists.safetensors --other Real-ESRGAN=outputs/realesrgan

Of each pair of pictures with the same name the middle is taken, one window of the model. Prints the
mean distance (DISTS, from 0 for equal pictures) to the reference of:

* bicubic enlargement, and the same part of the pictures of every `--other`;
* the model;
* the model on the reference reduced by bicubic instead of the input: what the camera's blur costs;
* the model's known scales with the true bits of the drawn ones: what drawing costs;
* the true bits of all scales: what the autoencoder and its bits cost.

Nothing is colour-corrected.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.imaging.tensors import resize_bicubic, to_tensor, to_u8
from nsarm_cli.models.core.pyramid import area
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.resolver import NsarmResolver
from nsarm_cli.perceptual.dists import Dists
from nsarm_cli.pipeline import Upscaler
from nsarm_cli.runtime import window_generator
from nsarm_cli.training.labels import modified_labels


def middle(path: Path, side: int) -> Tensor:
    """The middle square of a picture, "1 3 side side" in [-1, 1].

    Raises:
        ValueError: the picture is smaller.
    """
    with Image.open(path) as image:
        if min(image.size) < side:
            raise ValueError(f"{path} has no {side} x {side} pixels")
        left, top = ((full - side) // 2 for full in image.size)
        cut = image.convert("RGB").crop((left, top, left + side, top + side))
    return to_tensor(cut)[None]


def true_bits(model: NsarmModel, hr: Tensor, known: list[Tensor]) -> Tensor:
    """The picture of known residuals' bits and, for the other scales, the reference's own."""
    weight = model.autoencoder.encoder.conv_in.weight
    target = model.autoencoder.encode(hr.to(weight.dtype)).float()
    forced = modified_labels(target, known, model.pyramid, model.config.patch, area)
    return model.decode(forced.feature)


@torch.inference_mode()
def pictures_of(
    resolver: NsarmResolver, lr: Tensor, hr: Tensor, seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """What the model makes of one window, with more and more of the truth.

    Args:
        resolver: an NSARM model without text.
        lr: "1 3 window window" in [-1, 1].
        hr: the reference, as much larger as the model enlarges.
        seed: of the drawn bits.
    """
    model = resolver.model

    def made(window: Tensor) -> Tensor:
        return resolver.resolve(window, [window_generator(seed, 0)], resolver.sampling)

    known = model.preliminary_residuals(lr)
    yield "bicubic", resize_bicubic(lr, hr.shape[-2:])
    yield "the model", made(lr)
    yield "the model, from the reduced reference", made(resize_bicubic(hr, lr.shape[-2:]))
    yield "its known scales, the drawn ones true", true_bits(model, hr, known)
    yield "all bits true", true_bits(model, hr, [])


def measure(
    resolver: NsarmResolver,
    distance: Dists,
    pairs: list[tuple[Path, Path]],
    others: Mapping[str, Path],
) -> dict[str, float]:
    """Mean distance to the reference for each kind of picture.

    Args:
        resolver: an NSARM model without text.
        distance: how far two pictures "1 3 h w" in [-1, 1] are.
        pairs: input and reference.
        others: folders with pictures of the references' names.
    """
    found: dict[str, list[float]] = {}
    for lr_path, hr_path in pairs:
        hr = middle(hr_path, resolver.window * resolver.scale)
        made = dict(pictures_of(resolver, middle(lr_path, resolver.window), hr))
        made |= {
            name: middle(folder / hr_path.name, hr.shape[-1]) for name, folder in others.items()
        }
        for name, picture in made.items():
            rounded = to_u8(picture).float() / 127.5 - 1
            with torch.inference_mode():
                found.setdefault(name, []).append(float(distance(rounded, hr)))
    return {name: statistics.mean(values) for name, values in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Measure pairs of pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nsarm-nano")
    parser.add_argument("--lr", type=Path, required=True)
    parser.add_argument("--hr", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, metavar="N")
    parser.add_argument("--dists", type=Path, required=True, metavar="FILE")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=FOLDER")
    args = parser.parse_args(arguments)
    resolver = Upscaler.from_pretrained(args.model, device="cpu").resolver
    if not isinstance(resolver, NsarmResolver) or resolver.model.config.text_width is not None:
        parser.error(f"--model {args.model} is no NSARM model without text; give one")
    pairs = [(args.lr / path.name, path) for path in sorted(args.hr.glob("*.png"))[:: args.every]]
    if not pairs:
        parser.error(f"--hr {args.hr} has no .png; name a folder that has")
    others = {name: Path(folder) for name, _, folder in (o.partition("=") for o in args.other)}
    found = measure(resolver, Dists.from_file(args.dists), pairs, others)
    print(f"| {len(pairs)} pictures | DISTS |\n|---|---:|")
    for name, value in found.items():
        print(f"| {name} | {value:.4f} |")


if __name__ == "__main__":
    main()

"""How good the pictures of the fixed validation set are.

Letters: b pictures, h w pixels.
"""

import math

from torch import Tensor

from nsarm_cli.evaluation.niqe import has_enough_blocks, niqe
from nsarm_cli.imaging.tensors import to_u8
from nsarm_cli.perceptual.dists import Dists
from nsarm_cli.perceptual.lpips import PerceptualDistance


class Judge:
    """Adds up figures over the batches of one validation.

    Args:
        perceptual: LPIPS; None leaves it out.
        dists: DISTS; None leaves it out.
    """

    def __init__(self, perceptual: PerceptualDistance | None, dists: Dists | None = None) -> None:
        self._distances = {"perceptual": perceptual, "dists": dists}
        self._found: dict[str, list[float]] = {}

    def compare(self, made: Tensor, wanted: Tensor) -> None:
        """Measure pictures "b 3 h w" in [-1, 1] against those they should be, and by themselves."""
        error = ((made.float() - wanted) / 2).square().mean((1, 2, 3))
        self._add("psnr", (-10 * error.clamp_min(1e-10).log10()).tolist())
        for name, distance in self._distances.items():
            if distance is not None:
                self._add(name, distance.each(made.float(), wanted).tolist())
        self.look(made)

    def look(self, made: Tensor) -> None:
        """Measure pictures by themselves: NIQE, where they are large enough for it."""
        if has_enough_blocks(*made.shape[-2:]):
            self._add("niqe", [niqe(picture) for picture in to_u8(made).cpu()])

    def note(self, name: str, value: float) -> None:
        """Add a figure of a batch."""
        self._add(name, [value])

    def figures(self) -> dict[str, float]:
        """Means of all that was added; what is not a number, as NIQE of a flat picture, is not."""
        means = {}
        for name, values in self._found.items():
            known = [value for value in values if not math.isnan(value)]
            means[name] = sum(known) / len(known) if known else math.nan
        return means

    def _add(self, name: str, values: list[float]) -> None:
        self._found.setdefault(name, []).extend(values)

"""The order and sizes of the scales that a next-scale model predicts.

A scale is a (height, width) grid of tokens; one token covers `patch` x `patch`
latents. Plain Python, no tensors.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

Grid = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class ScaleSchedule:
    """Token grids from the coarsest to the finest scale.

    Attributes:
        tokens: (height, width) of each scale, in tokens.
        patch: latents per token and side (2 in NSARM-8B, VAR arXiv 2404.02905 has 1).
        position_grid: the grid that rotary positions are normalised to; usually the last
            scale's, but a truncated schedule keeps the full schedule's.
        prefix: (height, width) of the condition's tokens, which come before the first scale
            and belong to it; None where the condition has none.
    """

    tokens: tuple[Grid, ...]
    patch: int
    position_grid: Grid
    prefix: Grid | None = None

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ValueError("a schedule needs at least one scale")
        if any(h < 1 or w < 1 for h, w in self.tokens):
            raise ValueError(f"scales must be at least 1x1, got {self.tokens}")

    @classmethod
    def square(cls, sides: Sequence[int], patch: int) -> "ScaleSchedule":
        """Square scales with the given sides, in tokens."""
        return cls(tuple((s, s) for s in sides), patch, (sides[-1], sides[-1]))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def latents(self) -> tuple[Grid, ...]:
        """(height, width) of each scale, in latents."""
        return tuple((h * self.patch, w * self.patch) for h, w in self.tokens)

    @property
    def prefix_length(self) -> int:
        """Tokens of the condition before the first scale."""
        return 0 if self.prefix is None else self.prefix[0] * self.prefix[1]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens that the transformer sees as each scale; the first has the prefix too."""
        first, *others = (h * w for h, w in self.tokens)
        return (self.prefix_length + first, *others)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Position of each scale's first token in the whole sequence, and the total last."""
        return (0, *accumulate(self.lengths))

    @property
    def total(self) -> int:
        """Tokens of all scales together, and of the prefix."""
        return sum(self.lengths)

    def truncated(self, scales: int) -> "ScaleSchedule":
        """The first `scales` scales, with positions still on the full grid."""
        return dataclasses.replace(self, tokens=self.tokens[:scales])

"""Stochastic depth (arXiv 1603.09382): in training, samples leave out branches of blocks."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn


class DropPath:
    """Lets each sample leave out branches, more often in later blocks.

    Works by hooks on attention and feed-forward of the blocks, whose results are added to the
    residual stream: what is left out is zero, what is kept is enlarged so that the mean stays.

    Args:
        blocks: of a transformer, with `attention` and `feed_forward`.
        most: probability at the last block; it rises evenly from 0 at the first.
    """

    def __init__(self, blocks: nn.ModuleList, most: float) -> None:
        last = max(1, len(blocks) - 1)
        self._rates = torch.tensor([most * i / last for i in range(len(blocks))])[:, None]
        self._factors: Tensor | None = None
        self._active = most > 0
        for i, block in enumerate(blocks):
            if self._rates[i] > 0:
                for branch, name in enumerate(("attention", "feed_forward")):
                    block.get_submodule(name).register_forward_hook(self._hook(i, branch))

    def draw(self, generators: Sequence[Generator], device: torch.device) -> None:
        """Choose what a batch leaves out, until the next choice; one generator per sample."""
        if not self._active:
            return
        blocks = len(self._rates)
        drawn = torch.stack([torch.rand(blocks, 2, generator=g) for g in generators], dim=-1)
        rates = self._rates[:, :, None]
        self._factors = ((drawn >= rates) / (1 - rates)).to(device)

    def rest(self) -> None:
        """Leave out nothing from here on."""
        self._factors = None

    def _hook(self, block: int, branch: int) -> Callable[..., Tensor | None]:
        def scale(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor | None:
            if self._factors is None:
                return None
            return out * self._factors[block, branch][:, None, None].to(out.dtype)

        return scale

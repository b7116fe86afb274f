"""The moving average of trained parameters, which often makes better pictures than the last.

It is kept where the parameters are: with several processes each averages its own part.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class MovingAverage:
    """An exponential moving average.

    Args:
        parameters: by name.
        decay: weight of the past, in (0, 1). Over the first steps it is smaller,
            (1 + step) / (10 + step), so that the starting values fade (our choice, as in
            TensorFlow's moving averages).
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.values = {name: p.detach().clone() for name, p in parameters.items()}
        self._parameters = parameters
        self._decay = decay

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again with the parameters as they are now."""
        for name, value in self.values.items():
            _local(value).copy_(_local(self._parameters[name]))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after update number `step`, counted from 1."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            _local(value).lerp_(_local(self._parameters[name]), weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the parameters' place for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self.values.items():
            mine, theirs = _local(value), _local(self._parameters[name])
            kept = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(kept)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()

"""Windows of a batch one by one where a batch would only change how they are rounded."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from nsarm_cli.models.interface import OnScale, Sampling, Trace


class Together(Protocol):
    """Runs a whole batch at once."""

    def __call__(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None,
        trace: Trace | None,
    ) -> Tensor:
        """Make one result per window "b 3 h w"."""
        ...


def in_parts(
    together: Together,
    lr: Tensor,
    generators: Sequence[Generator],
    sampling: Sampling,
    *,
    on_scale: OnScale | None,
    trace: Trace | None,
) -> Tensor:
    """Run windows together on a GPU and one by one on a processor.

    A batch is rounded as no window alone is, and a processor gains nothing from one. The trace
    is of the first window.
    """
    if len(generators) != len(lr):
        raise ValueError(f"{len(generators)} generators for {len(lr)} windows")
    size = 1 if lr.device.type == "cpu" else len(lr)
    results = [
        together(
            lr[start : start + size],
            generators[start : start + size],
            sampling,
            _part(on_scale, start // size, len(lr) // size),
            None if start else trace,
        )
        for start in range(0, len(lr), size)
    ]
    return torch.cat(results)


def _part(on_scale: OnScale | None, part: int, parts: int) -> OnScale | None:
    """Turn the progress of one part into that of all."""
    if on_scale is None:
        return None
    return lambda done, total: on_scale(part * total + done, parts * total)

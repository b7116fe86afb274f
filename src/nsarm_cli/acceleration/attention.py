"""Which of PyTorch's attention kernels is quickest on this GPU, measured once per kind of pass.

Letters: b batch, n heads, l tokens, e width of one head.
"""

import functools
import logging
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nsarm_cli.models.core.attention import (
    Attend,
    AttentionPass,
    block_causal_attention,
    scale_by_scale,
)

BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
)
"""What is tried; the remaining one, plain matrix products, stores all of them."""

_GAIN = 0.1
"""Share of the time that another kernel must save, so that chance does not choose."""

_CALLS = 7

_log = logging.getLogger(__name__)

Seconds = Callable[[Callable[[], object]], float]
"""Measures how long a call takes."""


def cuda_seconds(device: torch.device, call: Callable[[], object]) -> float:
    """Median time of a call on a CUDA GPU, after one that does not count."""
    call()
    taken = []
    with torch.cuda.device(device):
        for _ in range(_CALLS):
            begin, end = _event(), _event()
            begin.record()
            call()
            end.record()
            end.synchronize()
            taken.append(begin.elapsed_time(end) / 1e3)
    return float(statistics.median(taken))


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class MeasuredAttention:
    """A `PlanAttention` that computes scale by scale, with the kernel that was quickest.

    PyTorch's own choice stands unless another is clearly quicker. Kernels differ by rounding.

    Args:
        seconds: measures a call, such as `cuda_seconds` of a device.
        backends: kernels to try; one that refuses a shape is passed over.
    """

    def __init__(self, seconds: Seconds, backends: Sequence[SDPBackend] = BACKENDS) -> None:
        self._seconds = seconds
        self._backends = backends
        self._chosen: dict[AttentionPass, SDPBackend | None] = {}

    def __call__(self, asked: AttentionPass) -> Attend:
        """Attention of a pass; measures when it is the first of its kind."""
        if asked not in self._chosen:
            self._chosen[asked] = self._quickest(asked)
        return _through(self._chosen[asked], asked)

    def _quickest(self, asked: AttentionPass) -> SDPBackend | None:
        """The best kernel; None is PyTorch's own choice."""
        tokens = sum(asked.lengths)
        # The time does not depend on the numbers.
        queries, keys = (
            torch.zeros(
                (asked.batch, asked.heads, length, asked.head_width),
                device=asked.device,
                dtype=asked.dtype,
            )
            for length in (tokens, asked.before + tokens)
        )
        best, least = None, (1 - _GAIN) * self._time(None, asked, queries, keys)
        for backend in self._backends:
            try:
                taken = self._time(backend, asked, queries, keys)
            except RuntimeError:  # it does not do this on this device
                continue
            if taken < least:
                best, least = backend, taken
        chosen = "PyTorch's choice" if best is None else best.name
        _log.info("attention of %d tokens to %d: %s", tokens, keys.shape[2], chosen)
        return best

    def _time(
        self, backend: SDPBackend | None, asked: AttentionPass, queries: Tensor, keys: Tensor
    ) -> float:
        attend = _through(backend, asked)
        return self._seconds(lambda: attend(queries, keys, keys))


def _through(backend: SDPBackend | None, asked: AttentionPass) -> Attend:
    if backend is None:
        return scale_by_scale(asked)
    return functools.partial(_attend, backend, asked.lengths)


def _attend(
    backend: SDPBackend, lengths: Sequence[int], queries: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    with sdpa_kernel(backend):
        return block_causal_attention(queries, keys, values, lengths, scale=1.0)

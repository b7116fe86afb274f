"""CUDA graphs: all kernels of a pass given to the GPU at once."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from nsarm_cli.models.core.recorded import Replay

_log = logging.getLogger(__name__)


class CudaGraphs:
    """Records work as CUDA graphs that share their memory; a `Record` of `RecordedPasses`.

    What one of them gives must be used before the next is played, which may write to it.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensor]) -> Replay:
        """Record work that has run before; what cannot be recorded is done anew each time."""
        graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        recording = torch.cuda.graph(
            graph,
            self._pool,
            self._stream,
            capture_error_mode="thread_local",  # what other threads do is no part of the work
        )
        try:
            with torch.cuda.device(self._device), recording:
                result = work()
        except RuntimeError as error:
            torch.cuda.set_stream(usual)
            if isinstance(error, torch.OutOfMemoryError):
                raise
            _log.warning("going on without a CUDA graph, which could not be recorded: %s", error)
            return work

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

"""Prepare batches in background processes, and tell what is wrong with pictures."""

import logging
import os
import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from nsarm_cli.errors import ImageError, NsarmError
from nsarm_cli.training.data import Batch, Batches

_log = logging.getLogger(__name__)


def loader(dataset: Batches, start: int, workers: int, most_faults: int = 0) -> Iterator[Batch]:
    """Batches from step `start` on, made by `workers` background processes (0: in this one).

    Args:
        dataset: makes them.
        start: first step.
        workers: processes.
        most_faults: corrupt pictures that are passed over; each is told once.

    Raises:
        ImageError: there are more corrupt pictures.
        NsarmError: what went wrong in a worker, as it was raised there.
    """
    batches = DataLoader(
        _Caught(dataset),
        batch_size=None,
        sampler=range(start, len(dataset)),
        num_workers=workers,
        worker_init_fn=_begin_worker,
        prefetch_factor=4 if workers else None,
        # An iterator draws a seed for its workers; the run's own random numbers stay untouched.
        generator=torch.Generator().manual_seed(0),
    )
    known: dict[str, None] = {}
    for batch in batches:
        if isinstance(batch, NsarmError):
            raise batch
        for fault in batch.faults:
            if fault in known:
                continue
            known[fault] = None
            if len(known) > most_faults:
                raise ImageError(fault if most_faults == 0 else _too_many(list(known), most_faults))
            _log.warning("another picture is shown instead: %s", fault)
        yield batch


class _Caught(Dataset[Batch | NsarmError]):
    """Hands errors over as items, since a `DataLoader` wraps what workers raise in a traceback."""

    def __init__(self, dataset: Batches) -> None:
        self._dataset = dataset

    def __getitem__(self, step: int) -> Batch | NsarmError:
        try:
            return self._dataset[step]
        except NsarmError as error:
            return error


def _too_many(faults: list[str], most: int) -> str:
    return (
        f"{len(faults)} pictures or captions cannot be read, more than the {most} that corrupt "
        f"allows; the last is {faults[-1]}"
    )


def _begin_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C and job systems signal the whole process group, but it is the main process that
    # decides when workers end. SIGTERM stays: it is how a worker is ended in an emergency.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()

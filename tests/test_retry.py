import pytest
import torch

from nsarm_cli.errors import DeviceError
from nsarm_cli.retry import Retry

CPU, APPLE = torch.device("cpu"), torch.device("mps")
FULL_APPLE = "MPS backend out of memory (MPS allocated: 5.56 GB, max allowed: 6.80 GB)."
FULL_MAIN = "[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


class Eased:
    """Can make the model smaller once."""

    def __init__(self):
        self.asked = []

    def ease(self, *, may_change):
        self.asked.append(may_change)
        return len(self.asked) == 1


def rows_unless(fails, error):
    """Work that raises as often as asked before it succeeds."""
    left = [error] * fails

    def work(start, stop):
        if left:
            raise left.pop()
        return torch.arange(start, stop)

    return work


@pytest.mark.parametrize(
    ("device", "error"),
    [
        (APPLE, torch.OutOfMemoryError("full")),
        (APPLE, RuntimeError(FULL_APPLE)),
        (CPU, RuntimeError(FULL_MAIN)),
        (CPU, MemoryError()),
    ],
)
def test_work_is_tried_again_with_less_however_the_memory_says_that_it_is_full(device, error):
    relief = Eased()
    rows = Retry(device, 2, relief).windows(rows_unless(2, error), 3, may_change=True)
    assert rows.tolist() == [0, 1, 2]
    assert relief.asked == [True]


def test_a_full_device_is_an_error_with_a_remedy():
    with pytest.raises(DeviceError, match=r"out of memory with one window.*--device cpu"):
        Retry(APPLE, 1, None).windows(rows_unless(1, RuntimeError(FULL_APPLE)), 1, may_change=True)


def test_a_full_main_memory_is_no_reason_to_put_less_on_a_device():
    relief = Eased()
    with pytest.raises(MemoryError):
        Retry(APPLE, 4, relief).windows(rows_unless(9, RuntimeError(FULL_MAIN)), 4, may_change=True)
    assert relief.asked == []


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"):
        Retry(CPU, 2, Eased()).windows(rows_unless(1, RuntimeError("shapes")), 2, may_change=True)

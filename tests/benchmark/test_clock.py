"""Times, rates and memory: their algebra, never how fast this machine is."""

import sys

import pytest
import torch

from nsarm_cli.benchmark import clock
from nsarm_cli.benchmark.clock import HostClock, Spread, time_laps
from nsarm_cli.benchmark.memory import PeakMemory
from nsarm_cli.benchmark.roofline import Roofline, measure_roofline
from nsarm_cli.benchmark.work import Work

CPU = torch.device("cpu")


def test_a_spread_holds_the_middle_and_the_ends():
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)
    assert Spread.of([4.0, 1.0]) == Spread(2.5, 1.0, 4.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)


def test_laps_lie_between_marks_and_the_device_catches_up_before_each(monkeypatch):
    waited = []
    moments = iter([10.0, 11.5, 15.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(moments))
    stopwatch = HostClock(lambda: waited.append(0))
    for _ in range(3):
        stopwatch.mark()
    assert stopwatch.laps() == [1.5, 3.5]
    assert len(waited) == 3


def test_runs_to_warm_up_do_not_count_but_are_reported():
    runs, reported = [], []

    def run(mark):
        runs.append(0)
        mark()
        mark()

    laps = time_laps(run, CPU, warmup=2, repeat=3, on_run=reported.append)
    assert len(runs) == 5
    assert reported == [1, 2, 3, 4, 5]
    assert [len(lap) for lap in laps] == [2, 2, 2]
    assert all(seconds >= 0 for lap in laps for seconds in lap)


def test_the_floor_is_the_longer_of_arithmetic_and_traffic():
    roofline = Roofline(flop_per_second=100.0, bytes_per_second=10.0)
    assert roofline.floor(Work(flop=500, bytes=20)) == 5
    assert roofline.floor(Work(flop=100, bytes=20)) == 2


def test_work_adds_up():
    assert Work(1, 20) + Work(2, 30) == Work(3, 50)


@pytest.mark.usefixtures("presets")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_measured_rates_are_positive(dtype):
    roofline = measure_roofline(CPU, dtype)
    assert roofline.flop_per_second > 0
    assert roofline.bytes_per_second > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the peak")
def test_the_peak_includes_what_was_freed_meanwhile():
    memory = PeakMemory(CPU)
    before = memory.read()
    block = torch.ones(2**26, dtype=torch.uint8)
    del block
    after = memory.read()
    assert before is not None
    assert after is not None
    if sys.platform == "linux":  # elsewhere an earlier peak of the process may hide the block
        assert after - before > 2**25
    assert memory.kind == "resident in the process"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_events_of_a_gpu_time_what_lies_between_them():
    device = torch.device("cuda", 0)
    a = torch.ones(2048, 2048, device=device)
    memory = PeakMemory(device)

    def run(mark):
        mark()
        for _ in range(20):
            a @ a
        mark()

    (laps,) = time_laps(run, device, warmup=1, repeat=1, on_run=lambda _: None)
    nothing, products = laps
    assert 0 <= nothing < products
    peak = memory.read()
    assert peak is not None
    assert peak >= 2 * a.nbytes

"""What becomes of work that a GPU cannot record; the graphs themselves need one (tests/gpu)."""

from contextlib import contextmanager

import pytest
import torch

from nsarm_cli.acceleration.graphs import CudaGraphs

CUDA = torch.device("cuda")


@pytest.fixture
def driver(monkeypatch):
    """A stand-in for PyTorch's part, which raises what a test wants at the end of a recording."""
    state = {"error": None, "stream": "usual", "played": 0}

    class Graph:
        def replay(self):
            state["played"] += 1

    @contextmanager
    def graph(_graph, _pool, stream, **_):
        state["stream"] = stream
        yield
        if state["error"] is not None:
            raise state["error"]  # and the stream stays, as in PyTorch
        state["stream"] = "usual"

    @contextmanager
    def device(_):
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: "recording")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "usual")
    monkeypatch.setattr(torch.cuda, "set_stream", lambda to: state.update(stream=to))
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return state


def test_recorded_work_is_played_and_not_done_again(driver):
    done = []
    result = torch.ones(1)
    replay = CudaGraphs(CUDA)(lambda: done.append(1) or result)
    assert [replay() is result, replay() is result] == [True, True]
    assert (done, driver["played"]) == ([1], 2)


def test_what_cannot_be_recorded_is_done_each_time_and_said_once(driver, caplog):
    driver["error"] = RuntimeError("operation not permitted when stream is capturing")
    done = []
    replay = CudaGraphs(CUDA)(lambda: done.append(1) or torch.ones(1))
    replay()
    replay()
    assert len(done) == 3
    assert driver["stream"] == "usual"
    (record,) = caplog.records
    assert "without a CUDA graph" in record.getMessage()


def test_a_full_device_is_told_as_such(driver):
    driver["error"] = torch.OutOfMemoryError("full")
    with pytest.raises(torch.OutOfMemoryError):
        CudaGraphs(CUDA)(lambda: torch.ones(1))
    assert driver["stream"] == "usual"

"""Figures reach TensorBoard, wandb or trackio, and a fault of theirs ends no run."""

import sys
from types import SimpleNamespace

import pytest
import torch

from nsarm_cli.errors import ConfigError
from nsarm_cli.training import trackers
from nsarm_cli.training.grid import Gallery
from nsarm_cli.training.loop import Progress
from nsarm_cli.training.pace import Pace
from nsarm_cli.training.trackers import Careful, Nowhere, TensorBoard, open_tracker
from nsarm_cli.training.watch import Watch


@pytest.fixture
def picture(tmp_path):
    gallery = Gallery()
    gallery.show(torch.zeros(2, 3, 4, 4))
    gallery.write(tmp_path / "grid.png")
    return tmp_path / "grid.png"


@pytest.fixture
def service(monkeypatch):
    """A module with the functions that wandb and trackio share."""
    calls = []

    def noting(name):
        return lambda *given, **named: calls.append((name, given, named))

    module = SimpleNamespace(
        **{name: noting(name) for name in ("init", "log", "finish")}, Image=lambda path: path
    )
    monkeypatch.setattr(trackers, "_is_installed", lambda name: True)
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_tensorboard_shows_what_was_recorded(tmp_path, picture):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = open_tracker("tensorboard", tmp_path, {})
    tracker.figures(5, {"training/loss": 0.5})
    tracker.figures(10, {"training/loss": 0.25, "validation/psnr": 30.0})
    tracker.picture(10, picture)
    tracker.close()

    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("training/loss")] == [(5, 0.5), (10, 0.25)]
    assert found.Scalars("validation/psnr")[0].value == 30.0
    assert [e.step for e in found.Images("validation/pictures")] == [10]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_goes_on_with_the_curves_of_the_run(name, service, tmp_path, picture):
    for step in (1, 2):
        tracker = open_tracker(name, tmp_path, {"lr": 0.1})
        tracker.figures(step, {"training/loss": 0.5})
        tracker.picture(step, picture)
        tracker.close()

    (init, figures, shown, finish), again = service[:4], service[4:]
    assert init[2]["config"] == {"lr": 0.1}
    assert init[2]["resume"] == "allow"
    assert init == again[0]
    assert (figures[1], figures[2]) == (({"training/loss": 0.5},), {"step": 1})
    assert shown[1][0] == {"validation/pictures": str(picture)}
    assert finish[0] == "finish"


def test_the_default_is_tensorboard_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "_is_installed", lambda name: name == "tensorboard")
    assert isinstance(open_tracker("auto", tmp_path, {}), TensorBoard)
    monkeypatch.setattr(trackers, "_is_installed", lambda name: False)
    assert isinstance(open_tracker("auto", tmp_path, {}), Nowhere)
    with pytest.raises(ConfigError, match='tracker is "wandb", which is not installed; pip'):
        open_tracker("wandb", tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_fault_is_told_once_and_training_goes_on(caplog):
    class Broken(Nowhere):
        def figures(self, step, values):
            raise OSError("No space left on device")

    tracker = Careful(Broken())
    tracker.figures(1, {})
    tracker.figures(2, {})
    tracker.close()
    (record,) = caplog.records
    assert record.getMessage() == "the figures are no longer recorded: No space left on device"


def test_steps_that_are_due_are_recorded_and_all_are_reported(picture):
    class Listing(Nowhere):
        def __init__(self):
            self.seen = []

        def figures(self, step, values):
            self.seen.append((step, dict(values)))

        def picture(self, step, path):
            self.seen.append((step, path))

    pace = Pace(4, lambda: 2e12, lambda: 4e12)
    pace.note(2.0)
    listing, reports = Listing(), []
    with Watch(listing, reports.append) as watch:
        watch(Progress(1, 9, {"loss": 1.0}, 0.1, pace, is_due=False))
        watch(Progress(2, 9, {"loss": 0.5, "bits.3": 0.7}, 0.1, pace, {"psnr": 20.0}, picture))

    assert [report.step for report in reports] == [1, 2]
    (step, values), shown = listing.seen
    assert step == 2
    assert values == {
        "training/loss": 0.5,
        "training/bits.3": 0.7,
        "training/lr": 0.1,
        "speed/images per second": 2.0,
        "speed/TFLOP per second": 1.0,
        "speed/MFU": 0.25,
        "validation/psnr": 20.0,
    }
    assert shown == (2, picture)

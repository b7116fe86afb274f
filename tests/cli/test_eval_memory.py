"""`nsarm eval` under the plan of memory: what fits runs, and its numbers stay as they are."""

import json
from dataclasses import dataclass, field, replace

import pytest
import torch

from nsarm_cli.cli.eval_run import Run
from nsarm_cli.errors import DeviceError
from nsarm_cli.evaluation.ranks import Ranks
from nsarm_cli.memory.session import Session
from nsarm_cli.memory.settings import MemorySettings, Offload, Quantize


@dataclass
class FakeRelief:
    """First offloads, then quantises if it may; the model below runs out of memory until then."""

    settings: MemorySettings
    asked: list[bool] = field(default_factory=list)

    def ease(self, *, may_change: bool) -> bool:
        self.asked.append(may_change)
        if self.settings.offload is Offload.NONE:
            self.settings = replace(self.settings, offload=Offload.WEIGHTS)
        elif may_change and self.settings.quantize is Quantize.NONE:
            self.settings = replace(self.settings, quantize=Quantize.INT8)
        else:
            return False
        return True


@pytest.fixture
def crowded(monkeypatch, resolver):
    """A device that is full, as a session loads a model onto it, until `fits` says otherwise."""
    relief = FakeRelief(MemorySettings(torch.float32))
    relief.fits = lambda settings: settings.offload is not Offload.NONE

    def load(session):
        session._relief = relief
        return resolver, relief

    def resolve(*arguments, **options):
        if not relief.fits(relief.settings):
            raise torch.OutOfMemoryError
        return whole(*arguments, **options)

    whole = resolver.resolve
    monkeypatch.setattr(resolver, "resolve", resolve)
    monkeypatch.setattr(Session, "load", load)
    monkeypatch.setattr("nsarm_cli.cli.eval_model.weights_digest", lambda _: "digest")
    return relief


@pytest.fixture
def evaluate(run_cli, make_set, tmp_path):
    folder = make_set(("a", "b"))

    def run(*arguments):
        options = ("--device", "cpu", "--measures", "psnr_y", "-o", tmp_path / "out")
        return run_cli("eval", "--dataset", folder, *options, *arguments)

    return run


def model_settings(tmp_path):
    return json.loads((tmp_path / "out" / "results.json").read_text())["model"]


def test_what_fits_with_offloading_runs_and_that_is_no_other_setting(evaluate, crowded, tmp_path):
    done = evaluate()
    assert done.code == 0, done.err
    assert "memory: needs " in done.err
    assert crowded.settings.offload is Offload.WEIGHTS
    assert "quantize" not in model_settings(tmp_path)


def test_a_run_does_not_begin_to_quantise_between_pictures(evaluate, crowded):
    crowded.fits = lambda settings: settings.quantize is not Quantize.NONE
    refused = evaluate()
    assert refused.code == DeviceError.exit_code
    assert crowded.asked == [False, False]
    assert refused.err.count("\nerror: ") == 1
    assert "Traceback" not in refused.err


def test_what_must_be_quantised_is_so_from_the_first_picture_and_written_down(
    evaluate, crowded, monkeypatch, tmp_path
):
    monkeypatch.setattr("nsarm_cli.cli.eval_model._may_be_full", lambda _: True)
    crowded.fits = lambda settings: settings.quantize is not Quantize.NONE
    done = evaluate()
    assert done.code == 0, done.err
    assert crowded.asked == [True, True]
    assert model_settings(tmp_path)["quantize"] == "int8"
    crowded.settings = MemorySettings(torch.float32)
    crowded.fits = lambda _: True
    refused = evaluate()
    assert refused.code == 6
    assert "made with another quantize; choose another folder with -o" in refused.err
    assert evaluate("--overwrite").code == 0
    assert "quantize" not in model_settings(tmp_path)


def test_processes_must_run_the_model_alike(evaluate, crowded, monkeypatch):
    class Pair(Ranks):
        def gather(self, part):
            other = {**part, "quantize": "int8"} if isinstance(part, dict) else part
            return [p for p in (part, other) if p is not None]

    whole = Run.evaluate
    monkeypatch.setattr(Run, "evaluate", lambda run, _: whole(run, Pair(0, 2)))
    refused = evaluate()
    assert refused.code == DeviceError.exit_code
    assert "start processes on like GPUs only" in refused.err

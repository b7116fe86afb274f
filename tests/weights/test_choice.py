"""Without --model, the best model that is installed and fits runs, and the reason is said."""

import json

import pytest
import torch

from nsarm_cli.models.nsarm.config import NSARM_8B
from nsarm_cli.weights import choice
from nsarm_cli.weights.choice import choose_model, needed_bytes, weights_fit

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("NSARM_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def installed(home):
    """The best model, as far as choosing looks at it."""
    folder = home / "models" / "nsarm-8b"
    folder.mkdir(parents=True)
    document = {"family": "nsarm", "config": NSARM_8B.to_dict()}
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def never(*_):
    raise AssertionError


def test_a_model_that_is_not_installed_does_not_run_and_how_to_get_it_is_said():
    name, why = choose_model(GPU, torch.bfloat16, never)
    assert name == "nsarm-nano"
    assert "nsarm-8b is not installed" in why
    assert "nsarm weights download nsarm-8b && nsarm weights convert nsarm-8b" in why


def test_the_planner_is_asked_whether_an_installed_model_fits(installed):
    asked = []

    def fits(folder, device, dtype):
        asked.append((folder, device, dtype))
        return len(asked) == 1, "so says the planner"

    name, why = choose_model(GPU, torch.float16, fits)
    assert asked == [(installed, GPU, torch.float16)]
    assert (name, "so says the planner" in why) == ("nsarm-8b", True)
    assert "--model nsarm-nano" in why
    name, why = choose_model(GPU, torch.float16, fits)
    assert (name, "so says the planner" in why) == ("nsarm-nano", True)
    assert "--model nsarm-8b" in why


def test_a_catalogue_without_the_best_model_gives_the_small_one(monkeypatch):
    monkeypatch.setattr(choice, "load_catalog", dict)
    assert choose_model(GPU, torch.bfloat16, never)[0] == "nsarm-nano"


def test_a_gpu_must_hold_weights_and_cache(installed, monkeypatch):
    # 8,760,895,424 + 81,624,209 parameters, and 2 x 40 x 3584 x 10,521 cached numbers.
    assert needed_bytes(NSARM_8B, torch.float32) == 4 * (8_842_519_633 + 3_016_581_120)
    needed = needed_bytes(NSARM_8B, torch.bfloat16)
    assert 2 * (8_842_519_633 + 3_016_581_120) < needed < 25e9  # the condition stays in float32
    for free, able in ((needed - 1, False), (needed, True)):
        monkeypatch.setattr(choice, "free_bytes", lambda _, free=free: free)
        said, reason = weights_fit(installed, GPU, torch.bfloat16)
        assert said is able
        assert f"{free / 1e9:.1f} GB" in reason
        assert "cuda:0" in reason


def test_a_processor_is_never_given_hours_of_work_unasked(installed):
    able, reason = weights_fit(installed, CPU, torch.bfloat16)
    assert not able
    assert "hours per picture" in reason

"""Without --model, the best model that is installed and fits runs, and the reason is said."""

import json

import pytest
import torch

from nsarm_cli.models.nsarm.config import NSARM_8B
from nsarm_cli.weights import choice
from nsarm_cli.weights.choice import choose_model

GPU = torch.device("cuda", 0)


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

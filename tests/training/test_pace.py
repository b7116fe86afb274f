"""How fast a run goes."""

import pytest
import torch

from nsarm_cli.training import pace
from nsarm_cli.training.pace import Pace, peak_flops


def test_speed_is_that_of_the_steps_without_the_first():
    pace = Pace(8, lambda: 3e12, lambda: 1e13)
    for seconds in (60.0, 2.0, 2.0):
        pace.note(seconds)
    speed = pace.speed(10)
    assert speed.images == pytest.approx(4)
    assert speed.flops == pytest.approx(1.5e12)
    assert speed.share == pytest.approx(0.15)
    assert speed.left == pytest.approx(20)


def test_the_first_step_counts_as_long_as_it_is_the_only_one():
    pace = Pace(8)
    pace.note(4.0)
    assert pace.speed(0).images == pytest.approx(2)
    assert pace.speed(0).share is None


def test_a_change_of_speed_shows_after_a_while():
    pace = Pace(1)
    for seconds in (9.0, *[1.0] * 50, *[2.0] * 50):
        pace.note(seconds)
    assert pace.speed(0).images == pytest.approx(0.5, rel=0.02)


def test_operations_are_counted_once_and_only_when_asked_for():
    asked = []
    pace = Pace(1, lambda: asked.append(1) or 1.0)
    pace.note(1.0)
    assert asked == []
    pace.speed(0)
    pace.speed(0)
    assert asked == [1]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100 80GB PCIe", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)
def test_a_gpu_is_known_by_its_whole_name_and_others_are_measured(monkeypatch, name, known):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    monkeypatch.setattr(pace, "_measured", lambda *_: 1.0)
    rate = 1.0 if known is None else pace.NAMED[known]
    assert peak_flops(torch.device("cuda"), torch.bfloat16) == rate


def test_a_processor_is_measured_and_a_known_gpu_is_named(monkeypatch):
    assert peak_flops(torch.device("cpu"), torch.float32) > 1e8
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100-SXM4-80GB")
    assert peak_flops(torch.device("cuda"), torch.bfloat16) == 312e12

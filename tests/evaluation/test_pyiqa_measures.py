"""Measures of pyiqa, with a stand-in for the package: files are asked for, never downloaded."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from nsarm_cli.errors import WeightsError
from nsarm_cli.evaluation import pyiqa_measures as tested
from nsarm_cli.evaluation.measures import Batch
from nsarm_cli.evaluation.methods import BicubicMethod
from nsarm_cli.evaluation.pictures import find_set
from nsarm_cli.evaluation.protocol import Protocol
from nsarm_cli.evaluation.robustness import PAPER, choose_score

CPU = torch.device("cpu")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Empty caches, so that nothing of this machine is found."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(tested, "try_to_load_from_cache", lambda *_: None)
    return tmp_path / "hub"


@pytest.fixture
def pyiqa(monkeypatch):
    """A package that gives the mean of the pictures, and tells what it was asked."""
    asked = []

    def count(folder):
        return len(list(Path(folder).iterdir()))

    def create_metric(name, device):
        asked.append((name, os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")))
        if name == "fid":
            return lambda a, b, **_: count(a) + 1000 * count(b)
        return lambda x: x.mean((1, 2, 3))

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    return asked


def place_all(hub, monkeypatch):
    for extra in (*tested.EXTRAS, tested.FID):
        for file in extra.files:
            if not file.is_hub:
                (hub / file.name).parent.mkdir(parents=True, exist_ok=True)
                (hub / file.name).write_bytes(b"weights")
    monkeypatch.setattr(tested, "try_to_load_from_cache", lambda *_: "there")


def test_without_the_package_every_measure_names_the_extra_and_its_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    found, missing = tested.pyiqa_measures(CPU)
    assert found == []
    assert {entry.name for entry in missing} == set(PAPER)
    for entry in missing:
        assert (
            "pip install 'nsarm[metrics]' (its licence is PolyForm Noncommercial)" in entry.reason
        )


def test_a_missing_file_is_named_with_its_place_and_source(hub, pyiqa):
    _, missing = tested.pyiqa_measures(CPU)
    reasons = {entry.name: entry.reason for entry in missing}
    assert f"{hub}/pyiqa/musiq_koniq_ckpt-e95806b9.pth, which is missing" in reasons["musiq"]
    assert "https://huggingface.co/chaofengc/" in reasons["musiq"]
    assert "RN50.pt" in reasons["clipiqa"]
    assert pyiqa == []
    (hub / "pyiqa").mkdir(parents=True)
    (hub / "pyiqa" / "MANIQA_PIPAL-ae6d356b.pth").write_bytes(b"")
    _, missing = tested.pyiqa_measures(CPU)
    reason = next(entry.reason for entry in missing if entry.name == "maniqa")
    assert "hf download timm/vit_base_patch8_224.augreg2_in21k_ft_in1k model.safetensors" in reason


def test_a_program_that_is_not_the_published_one_is_refused(hub, pyiqa, monkeypatch):
    place_all(hub, monkeypatch)
    found, missing = tested.pyiqa_measures(CPU)
    assert [entry.name for entry in missing] == ["clipiqa"]
    assert "is not the published file" in missing[0].reason
    assert [m.name for m in found] == ["musiq", "maniqa", "topiq"]


def test_values_are_of_pictures_between_0_and_1_and_files_are_read_as_tensors(
    hub, pyiqa, monkeypatch
):
    place_all(hub, monkeypatch)
    found, _ = tested.pyiqa_measures(CPU)
    sr = torch.stack([torch.full((3, 8, 8), v, dtype=torch.uint8) for v in (0, 255)])
    assert found[0].compute(Batch(sr)) == [0.0, 1.0]
    assert [name for name, _ in pyiqa] == ["musiq", "maniqa-pipal", "topiq_nr"]
    assert {flag for _, flag in pyiqa} == {"1"}
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert found[1].fits(224, 224)
    assert not found[1].fits(223, 500)
    assert "maniqa-pipal of pyiqa" in found[1].variant


def test_whatever_the_package_raises_is_a_reason_to_leave_one_measure_out(hub, pyiqa, monkeypatch):
    place_all(hub, monkeypatch)

    def create_metric(name, device):
        raise RuntimeError(f"{name}: size mismatch\nmore")

    monkeypatch.setattr(sys.modules["pyiqa"], "create_metric", create_metric)
    found, missing = tested.pyiqa_measures(CPU)
    assert found == []
    assert "RuntimeError: musiq: size mismatch); get" in missing[1].reason


def test_with_all_four_the_score_is_the_papers():
    assert choose_score(None, [*PAPER, "lpips"], has_references=True).is_paper


def test_fid_is_of_whole_sets_with_references_and_enough_pictures(
    hub, pyiqa, monkeypatch, make_set
):
    with pytest.raises(WeightsError, match=r"pt_inception-2015-12-05-6726825d\.pth"):
        tested.load_fid(CPU)
    place_all(hub, monkeypatch)
    fid = tested.load_fid(CPU)
    assert fid([Image.new("RGB", (4, 4))] * 3, [Image.new("RGB", (4, 4))] * 2) == 2003
    pictures = find_set(make_set())
    methods = [BicubicMethod()]
    assert tested.fid_of_set(pictures, methods, Protocol.NATIVE, fid) == {}
    monkeypatch.setattr(tested, "FID_LEAST", 3)
    found = tested.fid_of_set(pictures, methods, Protocol.NATIVE, fid)
    assert found == {"bicubic": {"fid": 3003}}

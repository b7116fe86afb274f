"""What a run takes per step follows from its settings and its pictures."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.config import PriorConfig, Stage1Config, TokenizerConfig
from nsarm_cli.training.feed import check_data, training_batches, validation_batches

CPU = torch.device("cpu")
COMMON = {"steps": 3, "batch": 2, "crop": 64, "workers": 0, "validate_batches": 2}


def test_stages_that_need_no_lr_get_none(photos, micro_config):
    for kind, has_lr in ((TokenizerConfig, False), (PriorConfig, False), (Stage1Config, True)):
        batch = next(training_batches(kind(**COMMON), micro_config, [str(photos)], CPU)(0))
        assert (batch.lr is not None) is has_lr


def test_a_later_step_is_where_an_earlier_one_arrives(photos, micro_config):
    make = training_batches(Stage1Config(**COMMON), micro_config, [str(photos)], CPU)
    whole, rest = list(make(0)), list(make(2))
    assert (len(whole), len(rest)) == (3, 1)
    assert torch.equal(whole[2].lr, rest[0].lr)


def test_two_processes_share_the_batch_of_one(photos, micro_config):
    config = Stage1Config(**COMMON)
    whole = next(training_batches(config, micro_config, [str(photos)], CPU)(1))
    halves = [
        next(training_batches(config, micro_config, [str(photos)], CPU, part)(1))
        for part in ((0, 1), (1, 1))
    ]
    assert torch.equal(torch.cat([half.lr for half in halves]), whole.lr)


def test_validation_repeats_and_differs_from_training(photos, micro_config):
    config = Stage1Config(**COMMON)
    make = validation_batches(config, micro_config, [str(photos)], CPU)
    first, second = list(make()), list(make())
    assert len(first) == 2
    assert all(torch.equal(a.lr, b.lr) for a, b in zip(first, second, strict=True))
    trained = next(training_batches(config, micro_config, [str(photos)], CPU)(0))
    assert not torch.equal(first[0].hr, trained.hr)
    assert validation_batches(config, micro_config, [], CPU) is None


def test_shapes_of_a_run_have_the_pixels_of_their_template(tmp_path, micro_config):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    Image.fromarray(noise[:, :90]).save(tmp_path / "square.png")
    config = dataclasses.replace(PriorConfig(**COMMON), ratios=(1.0, 0.75), steps=12)
    seen = {
        (batch.ratio, tuple(batch.hr.shape[-2:]))
        for batch in training_batches(config, micro_config, [str(tmp_path)], CPU)(0)
    }
    assert seen == {(1.0, (64, 64)), (0.75, (56, 72))}


def test_an_unknown_recipe_is_named(photos, micro_config):
    config = Stage1Config(**COMMON, degradation="rain")
    with pytest.raises(ConfigError, match='degradation is "rain"; choose one of realesrgan'):
        training_batches(config, micro_config, [str(photos)], CPU)


@pytest.mark.gpu
def test_on_a_gpu_pictures_are_degraded_there(photos, micro_config):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    config = Stage1Config(**COMMON)
    here = next(training_batches(config, micro_config, [str(photos)], CPU)(0))
    there = next(training_batches(config, micro_config, [str(photos)], device)(0))
    assert there.lr.device.type == "cuda"
    torch.testing.assert_close(there.lr.cpu(), here.lr, atol=0.1, rtol=0)


def test_a_look_for_pictures_ends_where_links_lead_in_circles(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "up").symlink_to("..")
    with pytest.raises(ConfigError, match="no pictures found"):
        check_data([str(tmp_path)])
    Image.new("RGB", (8, 8)).save(tmp_path / "b" / "0.png")
    check_data([str(tmp_path)])

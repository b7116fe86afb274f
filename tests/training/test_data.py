"""A batch is a pure function of the step."""

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.degradation.recipe import REALESRGAN_LIGHT
from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.training.data import CropDataset, loader
from nsarm_cli.training.photos import PhotoStore


def crops(path, crop=32, batch=2, seed=0, length=8, **options) -> CropDataset:
    return CropDataset(PhotoStore([path]), crop, batch, seed, length, **options)


def save(folder, name, pixels):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(pixels).astype(np.uint8)).save(folder / name)


def same(one, two) -> bool:
    both_none = one.lr is None and two.lr is None
    return torch.equal(one.hr, two.hr) and (both_none or torch.equal(one.lr, two.lr))


def test_a_step_always_gives_the_same_batch(photos):
    options = {"shrink": 2.0, "recipe": REALESRGAN_LIGHT}
    dataset = crops(photos, **options)
    first = dataset[3]
    dataset[0]
    assert same(dataset[3], first)
    assert same(crops(photos, **options)[3], first)


def test_steps_and_seeds_give_different_batches(photos):
    dataset = crops(photos, recipe=REALESRGAN_LIGHT)
    assert not same(dataset[0], dataset[1])
    assert not same(dataset[0], crops(photos, seed=1, recipe=REALESRGAN_LIGHT)[0])


def test_the_crops_of_a_batch_do_not_depend_on_its_degradation(photos):
    assert torch.equal(crops(photos)[2].hr, crops(photos, recipe=REALESRGAN_LIGHT)[2].hr)


def test_workers_make_the_same_batches_and_a_start_skips_the_earlier_ones(photos):
    dataset = crops(photos, shrink=1.5, recipe=REALESRGAN_LIGHT)
    here, there = list(loader(dataset, 0, 0)), list(loader(dataset, 3, 1))
    assert (len(here), len(there)) == (8, 5)
    assert all(same(one, two) for one, two in zip(here[3:], there, strict=True))


def test_reading_batches_draws_no_global_random_number(photos):
    before = torch.get_rng_state()
    list(loader(crops(photos, length=1, recipe=REALESRGAN_LIGHT), 0, 0))
    list(loader(crops(photos, length=1), 0, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_shows_every_picture_once_each_time_in_another_order(tmp_path):
    count, epochs = 5, 4
    for i in range(count):
        save(tmp_path / "flat", f"{i}.png", np.full((8, 8, 3), 10 * i))
    dataset = crops(tmp_path / "flat", crop=8, batch=3)
    shades = torch.cat([dataset[step].hr[:, 0, 0, 0] for step in range(7)])
    seen = ((shades + 1) * 127.5 / 10).round().int()[: count * epochs].view(epochs, count)
    assert seen.sort(dim=1).values.tolist() == [list(range(count))] * epochs
    assert len({tuple(order) for order in seen.tolist()}) > 1


def test_crops_are_in_minus_one_to_one_and_of_the_size_asked(photos):
    batch = crops(photos, crop=48, batch=3)[0]
    assert batch.hr.shape == (3, 3, 48, 48)
    assert batch.hr.dtype == torch.float32
    assert batch.lr is None
    assert batch.hr.min() >= -1
    assert batch.hr.max() <= 1
    assert batch.hr.min() < -0.5
    assert batch.hr.max() > 0.5


def test_a_crop_keeps_the_pixels_of_the_picture(tmp_path):
    rng = np.random.default_rng(0)
    save(tmp_path / "noise", "x.png", rng.integers(0, 256, (40, 50, 3)))
    picture = PhotoStore([tmp_path / "noise"])[0]
    windows = np.lib.stride_tricks.sliding_window_view(picture, (16, 16, 3)).reshape(-1, 16, 16, 3)
    known = {window.tobytes() for window in windows}

    for crop in crops(tmp_path / "noise", crop=16, batch=8)[0].hr:
        pixels = ((crop.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
        turned = [np.rot90(side, k) for side in (pixels, pixels[:, ::-1]) for k in range(4)]
        assert sum(np.ascontiguousarray(t).tobytes() in known for t in turned) == 1


def test_all_eight_flips_and_turns_happen(tmp_path):
    picture = np.zeros((8, 8, 3))
    picture[0, 1] = 255
    save(tmp_path / "dot", "x.png", picture)
    seen = {crop.numpy().tobytes() for crop in crops(tmp_path / "dot", crop=8, batch=64)[0].hr}
    assert len(seen) == 8


def test_shrinking_varies_the_factor_up_to_the_limit(tmp_path):
    ramp = np.broadcast_to(np.arange(200)[None, :, None], (200, 200, 3))
    save(tmp_path / "ramp", "x.png", ramp)
    batch = crops(tmp_path / "ramp", crop=64, batch=32, shrink=2.0)[0].hr * 127.5
    # A ramp of one level per pixel: the range of a crop is the side it was cut from.
    sides = (batch.amax((1, 2, 3)) - batch.amin((1, 2, 3)) + 1) / 64
    assert sides.min() < 1.15
    assert sides.max() > 1.85
    assert sides.max() < 2.05


def test_a_picture_smaller_than_the_crop_is_enlarged(tmp_path):
    save(
        tmp_path / "small",
        "x.png",
        np.broadcast_to(np.arange(0, 240, 8)[None, :, None], (20, 30, 3)),
    )
    batch = crops(tmp_path / "small", crop=64, recipe=REALESRGAN_LIGHT)[0]
    assert batch.hr.shape == (2, 3, 64, 64)
    # A square of the shorter side, 20 pixels of 8 levels each, fills the crop.
    spans = (batch.hr.amax((1, 2, 3)) - batch.hr.amin((1, 2, 3))) * 127.5
    torch.testing.assert_close(spans, torch.full((2,), 152.0), atol=10, rtol=0)


def test_with_a_recipe_crops_carry_their_degraded_versions(photos):
    batch = crops(photos, crop=64, batch=4, recipe=REALESRGAN_LIGHT)[0]
    assert batch.lr is not None
    assert batch.lr.shape == (4, 3, 16, 16)
    assert batch.lr.abs().max() <= 1
    # Of the same crop: the mean colour survives blur, noise and JPEG.
    torch.testing.assert_close(batch.lr.mean((2, 3)), batch.hr.mean((2, 3)), atol=0.1, rtol=0)
    assert not torch.allclose(batch.lr[0].mean((1, 2)), batch.hr[1].mean((1, 2)), atol=0.02)


def test_a_batch_moves_with_both_sides(photos):
    meta = torch.device("meta")
    moved = crops(photos, recipe=REALESRGAN_LIGHT)[0].to(meta)
    assert moved.lr is not None
    assert {moved.hr.device, moved.lr.device} == {meta}
    assert crops(photos)[0].to(meta).lr is None


def test_enlarging_by_shrink_is_refused(photos):
    with pytest.raises(ConfigError, match=r"shrink is 0\.5"):
        crops(photos, shrink=0.5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_picture_stops_with_one_sentence_that_names_it(photos, workers):
    """From a worker the sentence used to come wrapped in a traceback."""
    (photos / "2.png").write_bytes(b"no picture")
    with pytest.raises(ImageError) as error:
        list(loader(crops(photos), 0, workers))
    assert str(error.value).startswith(f"{photos / '2.png'}: 2.png cannot be decoded")
    assert "\n" not in str(error.value)

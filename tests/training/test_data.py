"""A batch is a pure function of the step."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.degradation.recipe import CAMERA, REALESRGAN_LIGHT
from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.training.data import Batch, Batches, Framing
from nsarm_cli.training.loading import loader
from nsarm_cli.training.order import ShuffledOrder
from nsarm_cli.training.photos import PhotoStore


def crops(path, crop=32, batch=2, seed=0, length=8, part=None, **options) -> Batches:
    order = ShuffledOrder(PhotoStore([path]), batch, length, seed)
    framing = Framing({1.0: (crop, crop)}, **options)
    return Batches(order, framing, batch, seed, length, part=part)


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


def test_a_recipe_that_softens_gives_a_softer_picture_to_restore(photos):
    sharp, soft = (crops(photos, recipe=r)[2].hr for r in (REALESRGAN_LIGHT, CAMERA))
    assert soft.diff(dim=-1).square().mean() < 0.9 * sharp.diff(dim=-1).square().mean()
    assert float(soft.mean()) == pytest.approx(float(sharp.mean()), abs=0.01)


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


def test_parts_of_a_batch_made_apart_are_the_batch(photos):
    whole = crops(photos, batch=4, recipe=REALESRGAN_LIGHT, captions=True)[3]
    parts = [
        crops(photos, batch=4, recipe=REALESRGAN_LIGHT, captions=True, part=part)[3]
        for part in ((0, 1), (1, 3))
    ]
    assert torch.equal(torch.cat([part.hr for part in parts]), whole.hr)
    assert torch.equal(torch.cat([part.lr for part in parts]), whole.lr)
    assert torch.equal(torch.cat([part.seeds for part in parts]), whole.seeds)


def test_a_batch_splits_into_equal_parts(photos):
    whole = crops(photos, batch=4, recipe=REALESRGAN_LIGHT, captions=True)[0]
    parts = whole.split(2)
    assert [len(part.hr) for part in parts] == [2, 2]
    assert torch.equal(torch.cat([part.lr for part in parts]), whole.lr)
    assert sum((part.captions for part in parts), ()) == whole.captions
    draws = [g.get_state() for g in whole.generators("x")]
    again = [g.get_state() for part in parts for g in part.generators("x")]
    assert all(torch.equal(a, b) for a, b in zip(draws, again, strict=True))
    with pytest.raises(ValueError, match="4 samples cannot be split into 3"):
        whole.split(3)


def test_generators_differ_by_sample_purpose_and_step():
    batch = Batch(torch.zeros(2, 3, 4, 4), None, seeds=torch.tensor([5, 6]))
    drawn = [
        float(torch.rand((), generator=g))
        for purpose, step in (("flip", 0), ("flip", 1), ("drop", 0), ("flip", -1))
        for g in batch.generators(purpose, step)
    ]
    assert len(set(drawn)) == len(drawn)


def test_degrading_later_is_degrading_in_the_worker(photos):
    """On a GPU the pictures are degraded where the model is, each by its own seed."""
    recipe = REALESRGAN_LIGHT
    early = crops(photos, crop=64, batch=4, recipe=recipe)[1]
    late = crops(photos, crop=64, batch=4)[1]
    assert torch.equal(late.degraded(recipe).lr, early.lr)
    first, second = late.split(2)
    alone = torch.cat([second.degraded(recipe).lr, first.degraded(recipe).lr])
    assert torch.equal(alone, early.lr.roll(2, 0))


def test_a_caption_goes_with_its_picture(tmp_path):
    lines = []
    for i in range(4):
        save(tmp_path / "set", f"{i}.png", np.full((8, 8, 3), 60 * i))
        values = {"image_path": f"{i}.png", "long_caption": f"long {i}", "text": f"short {i}"}
        lines.append(json.dumps(values))
    (tmp_path / "set" / "list.jsonl").write_text("\n".join(lines))
    kinds = set()
    for batch in loader(crops(tmp_path / "set", crop=8, batch=4, captions=True, short=0.5), 0, 0):
        shades = ((batch.hr[:, 0, 0, 0] + 1) * 127.5 / 60).round().int().tolist()
        assert [int(caption.split()[1]) for caption in batch.captions] == shades
        kinds |= {caption.split()[0] for caption in batch.captions}
    assert kinds == {"long", "short"}
    assert crops(tmp_path / "set", crop=8)[0].captions is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_picture_stops_with_one_sentence_that_names_it(photos, workers):
    """From a worker the sentence used to come wrapped in a traceback."""
    (photos / "2.png").write_bytes(b"no picture")
    with pytest.raises(ImageError) as error:
        list(loader(crops(photos), 0, workers))
    assert str(error.value).startswith(f"{photos / '2.png'}: 2.png cannot be decoded")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_pictures_are_named_once_and_passed_over_up_to_the_limit(photos, workers, caplog):
    for i in (1, 2):
        (photos / f"{i}.png").write_bytes(b"no picture")
    batches = list(loader(crops(photos), 0, workers, most_faults=2))
    assert len(batches) == 8
    assert all(len(batch.hr) == 2 for batch in batches)
    assert [text for text in ("1.png", "2.png") if caplog.text.count(f"{text} cannot") == 1] == [
        "1.png",
        "2.png",
    ]
    with pytest.raises(ImageError, match="2 pictures or captions cannot be read, more than the 1"):
        list(loader(crops(photos), 0, workers, most_faults=1))


def test_passing_over_is_the_same_each_time_and_leaves_the_others_alone(photos):
    sound = list(loader(crops(photos), 0, 0))
    (photos / "2.png").write_bytes(b"no picture")
    first, second = (list(loader(crops(photos), 0, 0, most_faults=1)) for _ in range(2))
    assert all(torch.equal(a.hr, b.hr) for a, b in zip(first, second, strict=True))
    same = [
        torch.equal(a, b)
        for s, f in zip(sound, first, strict=True)
        for a, b in zip(s.hr, f.hr, strict=True)
    ]
    assert sum(same) == 12  # a quarter of the 16 places had the corrupt picture


def test_a_set_without_a_readable_picture_stops(photos):
    for path in photos.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"of 100 pictures none can be read, such as .*check-data"):
        list(loader(crops(photos), 0, 0, most_faults=1000))

"""One picture in, one picture four times as large out, whatever its size and the batch."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli import pipeline
from nsarm_cli.errors import DeviceError
from nsarm_cli.imaging.rows import Rows
from nsarm_cli.imaging.tensors import to_image, to_tensor
from nsarm_cli.models.interface import Sampling
from nsarm_cli.pipeline import Upscaler

CPU = torch.device("cpu")
SIZES = [(1, 1), (3, 300), (300, 3), (15, 16), (16, 16), (17, 16), (28, 29), (50, 33)]


def enlarge(resolver, picture, *, batch=None, **settings):
    return np.asarray(Upscaler(resolver, CPU, batch=batch).upscale(picture, **settings))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_output_is_exactly_four_times_as_wide_and_high(resolver, make_picture, size):
    picture = Upscaler(resolver, CPU).upscale(make_picture(*size))
    assert picture.mode == "RGB"
    assert picture.size == (4 * size[0], 4 * size[1])


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_windows_are_put_back_where_they_were_cut(resolver, make_picture, size):
    """Without noise the stand-in repeats pixels, and so must the whole."""
    source = make_picture(*size)
    large = enlarge(resolver, source, sampling=Sampling(temperature=0), batch=3)
    expected = np.asarray(source.resize((4 * size[0], 4 * size[1]), Image.Resampling.NEAREST))
    assert np.abs(large.astype(int) - expected).max() <= 1  # the blend may round


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_batch_does_not_change_the_picture(resolver, make_picture, size):
    source = make_picture(*size)
    alone = enlarge(resolver, source, batch=1, seed=3)
    assert np.array_equal(alone, enlarge(resolver, source, batch=7, seed=3))
    assert np.array_equal(alone, enlarge(resolver, source, seed=3))


def test_batches_are_as_large_as_asked_and_the_last_one_holds_the_rest(resolver, make_picture):
    enlarge(resolver, make_picture(50, 33), batch=1)
    windows = len(resolver.batches)
    resolver.batches.clear()
    enlarge(resolver, make_picture(50, 33), batch=7)
    full, rest = divmod(windows, 7)
    assert rest, "the size should leave a rest, or this shows nothing"
    assert resolver.batches == [7] * full + [rest]


def test_the_batch_is_one_on_a_processor_unless_asked(resolver, make_picture):
    enlarge(resolver, make_picture(50, 33))
    assert set(resolver.batches) == {1}


def test_a_batch_of_nothing_is_refused(resolver):
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        Upscaler(resolver, CPU, batch=0)


def test_the_same_seed_gives_the_same_picture_and_another_another(resolver, make_picture):
    source = make_picture(40, 20)
    first = enlarge(resolver, source, seed=1)
    assert np.array_equal(first, enlarge(resolver, source, seed=1))
    assert not np.array_equal(first, enlarge(resolver, source, seed=2))
    assert np.array_equal(enlarge(resolver, source), enlarge(resolver, source, seed=0))


def test_windows_draw_their_own_noise(resolver):
    """With one stream for all windows, a flat picture would show the same grain in each."""
    grain = enlarge(resolver, Image.new("RGB", (28, 16), (128, 128, 128)))
    left, right = grain[:, :40], grain[:, -40:]
    assert not np.array_equal(left, right)


def test_the_source_is_not_changed(resolver, make_picture):
    source = make_picture(20, 20)
    before = source.tobytes()
    enlarge(resolver, source)
    assert source.tobytes() == before


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_other_modes_are_taken_as_rgb(resolver, make_picture, mode):
    source = make_picture(20, 20).convert(mode)
    assert enlarge(resolver, source).shape == (80, 80, 3)


@pytest.mark.parametrize("batch", [1, 4])
def test_progress_rises_to_one_over_windows_and_scales(resolver, make_picture, batch):
    seen: list[float] = []
    enlarge(resolver, make_picture(50, 33), batch=batch, on_progress=seen.append)
    assert all(a <= b for a, b in itertools.pairwise(seen))
    assert 0 < seen[0] < 0.2
    assert seen[-1] == 1
    assert len(set(seen)) >= 3 * len(resolver.batches)  # the stand-in has three scales


def test_a_trace_holds_the_first_window_and_changes_nothing(resolver, make_picture):
    source = make_picture(50, 33)
    single: dict[str, torch.Tensor] = {}
    batched: dict[str, torch.Tensor] = {}
    plain = enlarge(resolver, source, seed=9)
    assert np.array_equal(plain, enlarge(resolver, source, seed=9, trace=single))
    enlarge(resolver, source, seed=9, trace=batched, batch=4)
    assert single.keys() == {"draws"}
    assert torch.equal(single["draws"], batched["draws"])


def test_the_settings_are_the_models_unless_given(resolver, make_picture):
    enlarge(resolver, make_picture(5, 5))
    enlarge(resolver, make_picture(5, 5), sampling=Sampling(temperature=0.1))
    assert [s.temperature for s in resolver.samplings] == [0.25, 0.1]
    assert Upscaler(resolver, CPU).sampling == resolver.sampling
    assert Upscaler(resolver, CPU).scale == 4


def test_colour_is_matched_by_the_models_method_unless_given(resolver, make_picture):
    """A model that darkens is brought back to the colours of its input."""

    class Dark(type(resolver)):
        def resolve(self, *arguments):
            return super().resolve(*arguments) - 0.3

    dark, source = Dark(), make_picture(30, 30)
    mean = np.asarray(source).mean()
    assert enlarge(dark, source).mean() < mean - 20
    assert abs(enlarge(dark, source, color="adain").mean() - mean) < 3
    dark.color = "adain"
    assert abs(enlarge(dark, source).mean() - mean) < 3
    assert enlarge(dark, source, color="none").mean() < mean - 20


@pytest.mark.parametrize("size", [(12, 20), (24, 40), (30, 50), (61, 89), (72, 120)])
def test_another_size_is_resized_after_one_pass(resolver, make_picture, size):
    source = make_picture(20, 12)
    picture = Upscaler(resolver, CPU).upscale(source, size=size)
    assert picture.size == (size[1], size[0])
    assert len(resolver.batches) == 2  # the windows of one pass


@pytest.mark.parametrize("size", [(84, 140), (144, 240), (192, 320)])
def test_a_large_enlargement_takes_a_second_pass(resolver, make_picture, size):
    upscaler = Upscaler(resolver, CPU)
    source = make_picture(20, 12)
    picture = upscaler.upscale(source, size=size, sampling=Sampling(temperature=0))
    assert picture.size == (size[1], size[0])
    steps = upscaler.steps(12, 20, size)
    assert [steps[0], steps[-1]] == [(12, 20), size]
    assert steps[1] == (size[0] // 4, size[1] // 4)
    smooth = source.resize((size[1], size[0]), Image.Resampling.NEAREST)
    assert np.abs(np.asarray(picture, int) - np.asarray(smooth, int)).mean() < 6


def test_the_second_pass_draws_apart_from_the_first(resolver, make_picture, monkeypatch):
    drawn = []
    original = type(resolver).resolve

    def resolve(self, lr, generators, *rest):
        drawn.extend(g.initial_seed() for g in generators)
        return original(self, lr, generators, *rest)

    monkeypatch.setattr(type(resolver), "resolve", resolve)
    enlarge(resolver, make_picture(20, 12), size=(192, 320))
    assert len(drawn) == len(set(drawn)) > 3


@pytest.mark.parametrize("size", [(193, 320), (0, 10), (12, 321)])
def test_a_size_out_of_range_is_refused(resolver, make_picture, size):
    with pytest.raises(ValueError, match="at most x16"):
        enlarge(resolver, make_picture(20, 12), size=size)


def test_progress_counts_both_passes(resolver, make_picture):
    seen: list[float] = []
    enlarge(resolver, make_picture(20, 12), size=(192, 320), on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_rows_come_while_the_windows_below_have_not_been_computed(resolver, make_picture):
    x = to_tensor(make_picture(16, 400))
    rows = Upscaler(resolver, CPU).rows(Rows.of(x))
    assert (rows.height, rows.width) == (1600, 64)
    first = next(rows.strips)
    assert len(resolver.batches) == 1
    whole = torch.cat([first, *rows.strips], dim=1)
    assert np.array_equal(to_image(whole), enlarge(resolver, make_picture(16, 400)))


def test_windows_may_be_joined_in_another_way(resolver, make_picture):
    """The seam for families that join windows before they are pixels."""

    class Whole:
        def windows(self, height, width):
            return 1

        def __call__(self, lr, settings):
            picture = torch.cat(list(lr.strips), 1)
            settings.on_windows(1)
            return Rows.of(picture.repeat_interleave(4, 1).repeat_interleave(4, 2))

    source, seen = make_picture(30, 20), []
    upscaler = Upscaler(resolver, CPU, one_pass=Whole())
    large = upscaler.upscale(source, on_progress=seen.append)
    assert np.array_equal(large, source.resize((120, 80), Image.Resampling.NEAREST))
    assert (seen, resolver.batches) == ([1], [])


def test_running_out_of_main_memory_is_told_as_python_tells_it(resolver, make_picture, monkeypatch):
    def resolve(*_):
        torch.empty(2**48)  # more than any processor can address

    monkeypatch.setattr(resolver, "resolve", resolve, raising=False)
    with pytest.raises(MemoryError, match="main memory is full with one window"):
        enlarge(resolver, make_picture(5, 5))


def test_from_pretrained_chooses_device_and_type_and_loads(resolver, make_picture, monkeypatch):
    asked = []

    def load(*arguments):
        asked.append(arguments)
        return resolver

    monkeypatch.setattr("nsarm_cli.weights.families.load_resolver", load)
    upscaler = Upscaler.from_pretrained(device="cpu", precision="fp32", batch=2)
    assert asked == [(pipeline.DEFAULT_MODEL, CPU, torch.float32)]
    assert pipeline.DEFAULT_MODEL == "nsarm-nano"
    upscaler.upscale(make_picture(30, 30))
    assert max(resolver.batches) == 2
    with pytest.raises(DeviceError, match="unknown"):
        Upscaler.from_pretrained(device="toaster")

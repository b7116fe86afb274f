"""Windows cover a picture, and cut then blended they give it back."""

import math

import numpy as np
import pytest
import torch

from nsarm_cli.imaging.tiles import RowBlender, Window, cut, pad_to_window, plan

SIDE, OVERLAP = 12, 3
LENGTHS = [1, 2, SIDE - 1, SIDE, SIDE + 1, 17, 21, 22, 37, 101]
SIZES = [(n, n) for n in LENGTHS] + [(1, 50), (50, 1), (5, 30), (30, 5), (SIDE, 40), (97, 13)]


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(7)) * 2 - 1


def enlarge(x: torch.Tensor, scale: int) -> torch.Tensor:
    return x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def blend(windows, height, width, scale, pieces, group=1):
    blender = RowBlender(windows, height, width, scale)
    return torch.cat([blender.add(batch) for batch in pieces.split(group)], dim=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 1, OVERLAP, SIDE // 2, SIDE - 1])
def test_windows_cover_every_pixel_and_share_at_least_the_overlap(size, overlap):
    windows = plan(*size, SIDE, overlap)
    assert windows == sorted(windows, key=lambda w: (w.top, w.left))
    for length, starts in zip(
        size, (sorted({w.top for w in windows}), sorted({w.left for w in windows})), strict=True
    ):
        assert starts[0] == 0
        assert starts[-1] == max(length - SIDE, 0)
        gaps = np.diff(starts)
        assert (gaps <= SIDE - overlap).all()
        assert np.ptp(gaps) <= 1 if len(gaps) else length <= SIDE
        assert len(starts) == 1 + max(0, math.ceil((length - SIDE) / (SIDE - overlap)))
    tops, lefts = ({getattr(w, side) for w in windows} for side in ("top", "left"))
    assert len(windows) == len(tops) * len(lefts)


@pytest.mark.parametrize("overlap", [-1, SIDE, SIDE + 1])
def test_an_overlap_that_leaves_no_step_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap"):
        plan(40, 40, SIDE, overlap)


def test_an_empty_picture_is_refused():
    with pytest.raises(ValueError, match="0x5"):
        plan(0, 5, SIDE, OVERLAP)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (7, 40), (SIDE, SIDE), (40, 40)])
def test_padding_mirrors_without_repeating_the_border(size):
    """As numpy's "reflect", which takes any size, while PyTorch's refuses small pictures."""
    x = picture(*size)
    pads = [(0, max(0, SIDE - n)) for n in size]
    expected = np.pad(x.numpy(), [(0, 0), *pads], mode="reflect")
    assert np.array_equal(pad_to_window(x, SIDE).numpy(), expected)


def test_padding_takes_batches_and_leaves_large_pictures_alone():
    batch = torch.stack([picture(3, 20), picture(3, 20).flip(-1)])
    assert torch.equal(pad_to_window(batch, SIDE)[1], pad_to_window(batch[1], SIDE))
    large = picture(SIDE, 40)
    assert pad_to_window(large, SIDE) is large


def test_cutting_past_the_picture_is_refused():
    with pytest.raises(ValueError, match="11x40"):
        cut(picture(11, 40), Window(0, 0, SIDE))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, OVERLAP, SIDE - 2])
@pytest.mark.parametrize("scale", [1, 4])
def test_cut_then_blended_a_picture_comes_back(size, overlap, scale):
    x = picture(*size)
    windows = plan(*size, SIDE, overlap)
    padded = pad_to_window(x, SIDE)
    pieces = torch.stack([enlarge(cut(padded, w), scale) for w in windows])
    whole = blend(windows, *size, scale, pieces)
    torch.testing.assert_close(whole, enlarge(x, scale), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, OVERLAP, SIDE - 2])
def test_weights_sum_to_one_at_every_pixel(size, overlap):
    windows = plan(*size, SIDE, overlap)
    whole = blend(windows, *size, 4, torch.ones(len(windows), 3, 4 * SIDE, 4 * SIDE))
    assert whole.shape == (3, 4 * size[0], 4 * size[1])
    torch.testing.assert_close(whole, torch.ones_like(whole), atol=1e-6, rtol=0)


def footprints(height, width, overlap=OVERLAP, scale=4):
    """Weight of each window over the whole picture, "n h w"."""
    windows = plan(height, width, SIDE, overlap)
    pieces = torch.zeros(len(windows), len(windows), 3, scale * SIDE, scale * SIDE)
    for i in range(len(windows)):
        pieces[i, i] = 1
    return windows, torch.stack([blend(windows, height, width, scale, p)[0] for p in pieces])


def test_two_windows_fade_along_half_a_cosine_over_just_what_they_share():
    _, (left, right) = footprints(SIDE, SIDE + 9)
    begin, end = 4 * 9, 4 * SIDE
    assert (left[:, :begin] == 1).all()
    assert (left[:, end:] == 0).all()
    t = (torch.arange(end - begin, dtype=torch.float64) + 0.5) / (end - begin)
    fade = ((1 + torch.cos(torch.pi * t)) / 2).float()
    torch.testing.assert_close(left[5, begin:end], fade, atol=1e-6, rtol=0)
    torch.testing.assert_close(right, left.flip(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("overlap", [OVERLAP, SIDE - 2])
def test_weights_are_never_negative_and_are_zero_outside_their_window(overlap):
    windows, weights = footprints(SIDE + 1, 41, overlap)
    assert weights.min() >= 0
    for window, weight in zip(windows, weights, strict=True):
        inside = torch.zeros_like(weight)
        cut(inside, Window(4 * window.top, 4 * window.left, 4 * SIDE)).fill_(1)
        assert (weight[inside == 0] == 0).all()
        assert weight.sum() > 0


def test_weights_do_not_fade_at_the_borders_of_the_picture():
    _, weights = footprints(30, 30)
    corners = weights[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.sum() == 4
    assert set(corners.flatten().tolist()) == {0, 1}


@pytest.mark.parametrize("size", [(40, 31), (5, 31), (40, 5)])
def test_the_rows_do_not_depend_on_how_windows_are_grouped(size):
    windows = plan(*size, SIDE, OVERLAP)
    generator = torch.Generator().manual_seed(1)
    pieces = torch.rand(len(windows), 3, 2 * SIDE, 2 * SIDE, generator=generator)
    one_by_one = blend(windows, *size, 2, pieces)
    for group in (2, 3, len(windows)):
        assert torch.equal(blend(windows, *size, 2, pieces, group), one_by_one)


def test_rows_come_as_soon_as_no_later_window_touches_them():
    height, width = 50, 30
    windows = plan(height, width, SIDE, OVERLAP)
    tops = sorted({w.top for w in windows})
    blender = RowBlender(windows, height, width, 4)
    done = 0
    for i, window in enumerate(windows):
        done += blender.add(torch.zeros(1, 3, 4 * SIDE, 4 * SIDE)).shape[1]
        row_complete = i + 1 == len(windows) or windows[i + 1].top != window.top
        later = [top for top in tops if top > window.top] if row_complete else [window.top]
        assert done == 4 * (min(later) if later else height)
    assert blender.add(torch.zeros(0, 3, 4 * SIDE, 4 * SIDE)).shape == (3, 0, 4 * width)


def test_memory_holds_one_row_of_windows_however_tall_the_picture():
    def held(height: int) -> int:
        blender = RowBlender(plan(height, 30, SIDE, OVERLAP), height, 30, 4)
        values = [v for v in vars(blender).values() if isinstance(v, torch.Tensor)]
        return sum(v.untyped_storage().nbytes() for v in values)

    assert held(10_000) == held(100) == 3 * (4 * SIDE) * (4 * 30) * 4


def test_rows_that_were_handed_out_do_not_change_later():
    windows = plan(60, SIDE, SIDE, OVERLAP)
    blender = RowBlender(windows, 60, SIDE, 1)
    first = blender.add(torch.full((1, 3, SIDE, SIDE), 0.5))
    before = first.clone()
    for _ in windows[1:]:
        blender.add(torch.full((1, 3, SIDE, SIDE), 9.0))
    assert torch.equal(first, before)


def test_half_precision_windows_are_blended_in_single_precision():
    windows = plan(SIDE, 30, SIDE, OVERLAP)
    pieces = torch.full((len(windows), 3, SIDE, SIDE), 0.3, dtype=torch.bfloat16)
    whole = blend(windows, SIDE, 30, 1, pieces)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole, torch.full_like(whole, float(pieces[0, 0, 0, 0])))


@pytest.mark.parametrize("shape", [(5, 3, SIDE, SIDE), (1, 3, SIDE, SIDE - 1), (1, 4, SIDE, SIDE)])
def test_windows_that_are_not_in_the_plan_are_refused(shape):
    blender = RowBlender(plan(SIDE, 30, SIDE, OVERLAP), SIDE, 30, 1)
    with pytest.raises(ValueError, match="windows"):
        blender.add(torch.zeros(shape))

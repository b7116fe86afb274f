"""The algebra of stage 1's targets and stage 2's labels."""

import pytest
import torch

from nsarm_cli.models.core.pyramid import ResidualPyramid, area, bilinear
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.training.labels import draw_flips, modified_labels, preliminary_targets

SIDES = (2, 6, 10, 16)  # not halves: bilinear and area resizing differ
PATCH, FIRST = 2, 2
PYRAMID = ResidualPyramid(tuple((side, side) for side in SIDES))


@pytest.fixture
def target() -> torch.Tensor:
    """Latents with coarse and fine parts, of the length of a code."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 8, side, side, generator=generator) for side in SIDES]
    return torch.stack([bilinear(part, (16, 16)) for part in parts]).sum(0) / (8 * 2) ** 0.5


@pytest.fixture
def wrong(target) -> list[torch.Tensor]:
    """Preliminary residuals of a network that knows nothing."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, side, side, generator=generator) for side in SIDES[:FIRST]]


def label(target, preliminary, **options):
    return modified_labels(target, preliminary, PYRAMID, PATCH, options.pop("by", area), **options)


def plain(target):
    """Every scale's residuals and codes without a transformation network (Alg. 1)."""
    return PYRAMID.decompose(target, bsq.quantise)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def bits_of(residual):
    return bsq.to_tokens(residual > 0, PATCH)


def flip_channel(scale: int) -> list[torch.Tensor | None]:
    flips: list[torch.Tensor | None] = [None] * len(SIDES)
    flips[scale] = torch.zeros(2, 8, SIDES[scale], SIDES[scale], dtype=torch.bool)
    flips[scale][0, 3] = True
    return flips


def test_preliminary_targets_are_the_first_residuals_of_the_whole_pyramid(target):
    targets = preliminary_targets(target, PYRAMID, FIRST)
    assert len(targets) == FIRST
    for made, residual in zip(targets, plain(target)[0], strict=False):
        assert torch.equal(made, residual)


def test_a_perfect_network_leaves_the_plain_labels(target):
    forced = label(target, preliminary_targets(target, PYRAMID, FIRST))
    residuals, codes = plain(target)
    assert len(forced.labels) == len(SIDES)
    for made, residual in zip(forced.labels, residuals, strict=True):
        assert torch.equal(made, bits_of(residual))
    assert torch.equal(forced.feature, PYRAMID.compose(codes))


def test_the_first_labels_are_the_bits_of_the_network(target, wrong):
    forced = label(target, wrong)
    for made, residual in zip(forced.labels, wrong, strict=False):
        assert torch.equal(made, bits_of(residual))


def test_later_labels_undo_the_errors_of_the_network(target, wrong):
    corrected = label(target, wrong).feature
    codes = [bsq.quantise(residual) for residual in wrong] + plain(target)[1][FIRST:]
    uncorrected = PYRAMID.compose(codes)
    assert (corrected - target).norm() < 0.8 * (uncorrected - target).norm()


def test_every_scale_brings_the_sum_of_codes_nearer_to_the_target(target):
    for preliminary in (preliminary_targets(target, PYRAMID, FIRST), []):
        labels = label(target, preliminary).labels
        codes = [
            bsq.bits_to_codes(bsq.from_tokens(bits, PATCH, side // PATCH))
            for bits, side in zip(labels, SIDES, strict=True)
        ]
        sums = [PYRAMID.compose(codes[: k + 1]) for k in range(len(SIDES))]
        errors = [float(target.norm()), *(float((feature - target).norm()) for feature in sums)]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.6 * errors[0]


def test_the_sum_is_that_of_the_labels(target, wrong):
    forced = label(target, wrong)
    codes = [
        bsq.bits_to_codes(bsq.from_tokens(bits, PATCH, side // PATCH))
        for bits, side in zip(forced.labels, SIDES, strict=True)
    ]
    torch.testing.assert_close(forced.feature, PYRAMID.compose(codes), atol=1e-6, rtol=0)


@pytest.mark.parametrize("resize", [area, bilinear])
@pytest.mark.parametrize("flipped", [False, True])
def test_the_input_of_a_scale_is_the_resized_sum_of_the_codes_before(
    target, wrong, resize, flipped
):
    flips = None
    if flipped:
        shapes = [(8, side, side) for side in SIDES]
        flips = draw_flips(shapes, 0.4, generators(2, 3))
    forced = label(target, wrong, by=resize, flips=flips)
    assert len(forced.inputs) == len(SIDES) - 1
    feature = torch.zeros_like(target)
    for k, side in enumerate(SIDES):
        if k > 0:
            tokens = bsq.to_tokens(resize(feature, (side, side)), PATCH)
            torch.testing.assert_close(forced.inputs[k - 1], tokens, atol=1e-6, rtol=0)
        bits = bsq.from_tokens(forced.labels[k], PATCH, side // PATCH)
        mask = torch.zeros_like(bits) if flips is None else flips[k]
        feature = feature + bilinear(bsq.bits_to_codes(bits ^ mask), (16, 16))
    torch.testing.assert_close(forced.feature, feature, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_flip_changes_no_label_up_to_its_scale_but_later_labels_and_inputs(target, wrong, scale):
    straight, flipped = label(target, wrong), label(target, wrong, flips=flip_channel(scale))
    for k in range(scale + 1):
        assert torch.equal(straight.labels[k], flipped.labels[k])
    for k in range(scale):
        assert torch.equal(straight.inputs[k], flipped.inputs[k])
    changed = [
        not torch.equal(straight.labels[k], flipped.labels[k]) for k in range(scale + 1, len(SIDES))
    ]
    assert changed == [True] * (len(SIDES) - 1 - scale)
    if scale + 1 < len(SIDES):
        assert not torch.equal(straight.inputs[scale], flipped.inputs[scale])
    # The other sample has no flip.
    for one, two in zip(straight.labels, flipped.labels, strict=True):
        assert torch.equal(one[1], two[1])


def test_later_scales_undo_flips(target):
    perfect = preliminary_targets(target, PYRAMID, FIRST)
    flips = [
        None,
        None,
        torch.rand(2, 8, 10, 10, generator=torch.Generator().manual_seed(0)) < 0.2,
        None,
    ]
    corrected = label(target, perfect, flips=flips)
    straight = label(target, perfect)
    residuals, codes = plain(target)
    codes[2] = bsq.bits_to_codes((residuals[2] > 0) ^ flips[2])
    uncorrected = PYRAMID.compose(codes)

    def error(feature):
        return float((feature - target).norm())

    assert error(straight.feature) < error(corrected.feature) < 0.8 * error(uncorrected)


def test_labels_of_a_sample_do_not_depend_on_its_batch(target, wrong):
    alone = label(target[1:], [residual[1:] for residual in wrong])
    together = label(target, wrong)
    for one, two in zip(alone.labels, together.labels, strict=True):
        assert torch.equal(one[0], two[1])


def test_flips_keep_to_the_share_and_differ_between_scales():
    shapes = [(8, 32, 32)] * 20
    masks = draw_flips(shapes, 0.3, generators(0))
    shares = torch.tensor([float(mask.float().mean()) for mask in masks])
    assert [tuple(mask.shape) for mask in masks] == [(1, *shape) for shape in shapes]
    assert shares.max() < 0.31
    assert shares.max() > 0.2
    assert shares.min() < 0.1
    assert abs(float(shares.mean()) - 0.15) < 0.06


def test_flips_follow_their_generator_alone():
    shapes = [(8, 4, 4)] * 2
    together = draw_flips(shapes, 0.4, generators(5, 6))
    for i, seed in enumerate((5, 6)):
        alone = draw_flips(shapes, 0.4, generators(seed))
        assert all(torch.equal(a[0], t[i]) for a, t in zip(alone, together, strict=True))
    assert not all(torch.equal(mask[0], mask[1]) for mask in together)

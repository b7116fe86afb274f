"""The whole degradation: sizes, levels, seeds and independence of the batch."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nsarm_cli.degradation import (
    REALESRGAN,
    REALESRGAN_LIGHT,
    RECIPES,
    Degradation,
    DegradationMixture,
    DegradationRecipe,
    degrade,
    make_pairs,
    pairs,
    usm_sharpen,
)
from nsarm_cli.degradation.draws import pick

EACH = pytest.mark.parametrize("chosen", RECIPES.values(), ids=RECIPES.keys())
SINGLE = {name: r for name, r in RECIPES.items() if isinstance(r, DegradationRecipe)}
EACH_SINGLE = pytest.mark.parametrize("chosen", SINGLE.values(), ids=SINGLE.keys())


def rngs(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """Smooth random pictures "b 3 h w" in [0, 1]."""
    coarse = torch.rand(shape[0], 3, 9, 9, generator=rngs(seed)[0])
    return F.interpolate(coarse, size=shape[1:], mode="bicubic").clamp(0, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10((a - b).square().mean().item())


@EACH
@pytest.mark.parametrize("size", [(64, 96), (132, 60), (32, 32)])
def test_the_result_has_a_quarter_of_the_size_and_8_bit_levels(
    chosen: Degradation, size: tuple[int, int]
):
    """Enough seeds that the strongest reductions, with pictures smaller than kernels, occur."""
    seeds = range(24)
    lr = degrade(pictures(len(seeds), *size), chosen, rngs(*seeds))
    assert lr.shape == (len(seeds), 3, size[0] // 4, size[1] // 4)
    assert lr.dtype == torch.float32
    assert lr.isfinite().all()
    assert torch.equal(lr, (lr * 255).round().clamp(0, 255) / 255)


@EACH
def test_a_batch_gives_what_each_sample_gives_alone(chosen: Degradation):
    hr = pictures(5, 96, 64)
    together = degrade(hr, chosen, rngs(0, 1, 2, 3, 4))
    for index in range(5):
        alone = degrade(hr[index : index + 1], chosen, rngs(index))
        assert torch.equal(alone[0], together[index])


@EACH
def test_the_same_seed_gives_the_same_result_and_another_seed_another(chosen: Degradation):
    hr = pictures(1, 64, 64)
    once, again, other = (degrade(hr, chosen, rngs(seed)) for seed in (7, 7, 8))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@EACH
def test_global_random_state_is_neither_read_nor_moved(chosen: Degradation):
    hr = pictures(1, 64, 64)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    once = degrade(hr, chosen, rngs(7))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(once, degrade(hr, chosen, rngs(7)))


@EACH
def test_the_input_is_left_alone(chosen: Degradation):
    hr = pictures(1, 64, 64)
    copy = hr.clone()
    degrade(hr, chosen, rngs(0))
    assert torch.equal(hr, copy)


def test_the_picture_is_still_there_and_light_damages_less():
    """Against a clean reduction: every family of pictures stays recognisable on the mean."""
    hr = pictures(24, 128, 128)
    clean = F.interpolate(hr, scale_factor=0.25, mode="area")
    full, light = (
        psnr(degrade(hr, chosen, rngs(*range(24))), clean)
        for chosen in (REALESRGAN, REALESRGAN_LIGHT)
    )
    assert light > full > 15


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_other_scales_divide_by_themselves(scale: int):
    hr = pictures(2, 24 * scale, 30 * scale)
    lr = degrade(hr, replace(REALESRGAN, scale=scale), rngs(0, 1))
    assert lr.shape == (2, 3, 24, 30)


def test_sharpening_is_part_of_the_recipe():
    hr = pictures(2, 64, 64)
    hr[..., 32:] = 1 - hr[..., 32:]
    plain = replace(REALESRGAN_LIGHT, usm=False)
    sharpened = degrade(hr, REALESRGAN_LIGHT, rngs(0, 1))
    by_hand = degrade(torch.stack([usm_sharpen(x) for x in hr]), plain, rngs(0, 1))
    assert torch.equal(sharpened, by_hand)
    assert not torch.equal(sharpened, degrade(hr, plain, rngs(0, 1)))


def test_a_sample_of_a_mixture_is_degraded_by_one_of_its_recipes_by_their_shares():
    camera, light = SINGLE["camera"], REALESRGAN_LIGHT
    mixture = DegradationMixture("both", ((3, camera), (1, light)))
    assert mixture.scale == 4
    hr, draws = pictures(1, 32, 32), 400
    taken: Counter[str] = Counter()
    for seed in range(draws):
        mixed = degrade(hr, mixture, rngs(seed))
        for part in (camera, light):
            after_the_choice = rngs(seed)
            pick(after_the_choice[0], (3, 1))
            taken[part.name] += torch.equal(mixed, degrade(hr, part, after_the_choice))
    assert taken.total() == draws
    assert taken["camera"] / draws == pytest.approx(0.75, abs=0.087)  # four standard errors


@pytest.mark.parametrize("parts", [(), ((1, REALESRGAN), (1, replace(REALESRGAN_LIGHT, scale=2)))])
def test_a_mixture_of_nothing_or_of_several_scales_is_refused(parts):
    with pytest.raises(ValueError, match="recipes of one scale; odd has"):
        DegradationMixture("odd", parts)


def test_a_camera_makes_far_less_noise_than_the_light_recipe_and_is_never_sharp():
    hr = torch.full((48, 3, 64, 64), 0.5)
    noise = {
        chosen.name: degrade(hr, chosen, rngs(*range(48))).std((1, 2, 3)).median()
        for chosen in (SINGLE["camera"], REALESRGAN_LIGHT)
    }
    assert noise["camera"] < 0.3 * noise["realesrgan-light"]
    sharpest = {name: r.blur.sigma[0] for name, r in SINGLE.items()}
    assert sharpest.pop("camera") > max(sharpest.values())


def test_what_is_to_be_restored_is_the_picture_itself_but_for_recipes_that_soften_it():
    hr = pictures(6, 64, 64) + 0.1 * torch.rand(6, 3, 64, 64, generator=rngs(1)[0])
    hr = hr.clamp(0, 1)
    for chosen in SINGLE.values():
        reference, lr = make_pairs(hr, chosen, rngs(*range(6)))
        assert torch.equal(lr, degrade(hr, chosen, rngs(*range(6))))
        if chosen.reference_blur is None:
            assert torch.equal(reference, hr)
            continue
        fine, coarse = (F.avg_pool2d(x, 8) for x in (hr, reference))
        assert torch.allclose(fine, coarse, atol=0.02)
        left = [x.diff(dim=-1).square().mean((1, 2, 3)) for x in (hr, reference)]
        assert (left[1] < 0.95 * left[0]).all()
        assert (left[1] > 0.01 * left[0]).all()


def test_a_mixture_softens_the_references_of_the_samples_that_drew_the_softening_recipe():
    hr, seeds = pictures(24, 32, 32), range(24)
    mixed = RECIPES["camera-and-light"]
    references, _ = make_pairs(hr, mixed, rngs(*seeds))
    softened = [not torch.equal(x, own) for x, own in zip(references, hr, strict=True)]
    assert softened == [mixed.draw(rng) is SINGLE["camera"] for rng in rngs(*seeds)]
    assert 0 < sum(softened) < 24


@pytest.mark.parametrize("size", [(66, 64), (64, 28)])
def test_sizes_that_cannot_be_divided_or_are_too_small_are_refused(size: tuple[int, int]):
    with pytest.raises(ValueError, match="HR side"):
        degrade(pictures(1, *size), REALESRGAN, rngs(0))


def test_one_generator_per_sample_is_demanded():
    with pytest.raises(ValueError, match="generators"):
        degrade(pictures(2, 64, 64), REALESRGAN, rngs(0))


def test_resize_factors_are_drawn_by_their_shares_and_within_their_range():
    generator, draws = rngs(0)[0], 2000
    factors = [pairs._draw_factor(generator, REALESRGAN.resize) for _ in range(draws)]
    assert min(factors) >= 0.15
    assert max(factors) <= 1.5
    shares = Counter("keep" if f == 1 else "up" if f > 1 else "down" for f in factors)
    for direction, share in (("up", 0.2), ("down", 0.7), ("keep", 0.1)):
        # Four standard errors at most.
        assert shares[direction] / draws == pytest.approx(share, abs=0.041)
    assert sum(f for f in factors if f < 1) / shares["down"] == pytest.approx(0.575, abs=0.03)


def test_a_choice_of_no_weight_is_never_picked():
    generator = rngs(0)[0]
    counts = Counter(pick(generator, (0, 1, 0, 3, 0)) for _ in range(2000))
    assert set(counts) == {1, 3}
    assert counts[3] / 2000 == pytest.approx(0.75, abs=0.04)


@EACH_SINGLE
def test_branches_are_taken_by_their_probabilities(
    chosen: DegradationRecipe, monkeypatch: pytest.MonkeyPatch
):
    """The steps are replaced by ones that note their names, so that many samples are cheap."""
    steps: list[str] = []

    def noting(name: str):
        def step(x: Tensor, *_: object) -> Tensor:
            steps.append(name)
            return x

        return step

    monkeypatch.setattr(pairs, "filter2d", noting("blur"))
    monkeypatch.setattr(pairs, "add_noise", noting("noise"))
    monkeypatch.setattr(pairs, "jpeg_round_trip", noting("jpeg"))
    monkeypatch.setattr(pairs, "_resize_by", noting("resize"))
    monkeypatch.setattr(pairs, "_resize_to", noting("resize"))
    hr, generator, draws = torch.zeros(3, 32, 32), rngs(0)[0], 2000
    seen: Counter[str] = Counter()
    for _ in range(draws):
        steps.clear()
        pairs._degrade_one(hr, chosen, generator)
        order = " ".join(steps)
        first = "blur resize noise"
        if chosen.second is not None:
            assert order.startswith(first + " jpeg ")
            second = order.removeprefix(first + " jpeg ")
            seen["second blur"] += second.startswith("blur")
            second = second.removeprefix("blur ")
            assert second.startswith("resize noise ")
            last = second.removeprefix("resize noise ")
        else:
            last = order.removeprefix(first + " ")
        assert last in ("jpeg resize", "jpeg resize blur", "resize jpeg", "resize blur jpeg")
        seen["sinc"] += "blur" in last
        seen["jpeg last"] += last.endswith("jpeg")
    # Four standard errors at most.
    assert seen["sinc"] / draws == pytest.approx(chosen.final_sinc_probability, abs=0.036)
    assert seen["jpeg last"] / draws == pytest.approx(0.5, abs=0.045)
    if chosen.second is not None:
        wanted = chosen.second.blur_probability
        assert seen["second blur"] / draws == pytest.approx(wanted, abs=0.045)


def test_resizing_uses_each_mode_in_turn_by_chance_and_never_antialiases():
    x = pictures(1, 40, 40)
    generator, draws = rngs(0)[0], 600
    for resize, expected in (
        (
            lambda: pairs._resize_to(x[0], (13, 11), generator),
            {m: F.interpolate(x, size=(13, 11), mode=m)[0] for m in pairs.RESIZE_MODES},
        ),
        (
            lambda: pairs._resize_by(x[0], 0.37, generator),
            {m: F.interpolate(x, scale_factor=0.37, mode=m)[0] for m in pairs.RESIZE_MODES},
        ),
    ):
        modes: Counter[str] = Counter()
        for _ in range(draws):
            result = resize()
            modes.update(m for m, picture in expected.items() if torch.equal(result, picture))
        assert modes.total() == draws
        for mode in ("area", "bilinear", "bicubic"):
            assert modes[mode] / draws == pytest.approx(1 / 3, abs=0.08)  # four standard errors


def test_the_second_resize_is_measured_against_the_lr(monkeypatch: pytest.MonkeyPatch):
    sizes: list[tuple[int, int]] = []
    resize = pairs._resize_to

    def noting(x: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
        sizes.append(size)
        return resize(x, size, rng)

    monkeypatch.setattr(pairs, "_resize_to", noting)
    degrade(pictures(60, 64, 128), REALESRGAN, rngs(*range(60)))
    second, last = sizes[::2], sizes[1::2]
    assert set(last) == {(16, 32)}
    assert {h for h, _ in second} <= set(range(4, 20))  # int(16 x [0.3, 1.2])
    assert {w for _, w in second} <= set(range(9, 39))
    assert min(w for _, w in second) < 14
    assert max(w for _, w in second) > 34


def test_the_recipes_have_the_published_ranges():
    assert {name: r.name for name, r in RECIPES.items()} == {
        "realesrgan": "realesrgan",
        "realesrgan-light": "realesrgan-light",
        "realesrgan-mild": "realesrgan-mild",
        "camera": "camera",
        "camera-and-light": "camera-and-light",
    }
    full, light = REALESRGAN, REALESRGAN_LIGHT
    assert full.second is not None
    assert light.second is None
    assert [r.scale for r in (full, light)] == [4, 4]
    assert [r.usm for r in (full, light)] == [True, True]
    assert [r.jpeg for r in (full, light)] == [(30, 95), None]
    assert [r.final_jpeg for r in (full, light)] == [(30, 95), (60, 95)]
    assert [r.blur.sigma for r in (full, light, full.second)] == [(0.2, 3), (0.2, 3), (0.2, 1.5)]
    resizes = [
        (r.resize.up, r.resize.down, r.resize.keep, *r.resize.factor)
        for r in (full, light, full.second)
    ]
    assert resizes == [
        (0.2, 0.7, 0.1, 0.15, 1.5),
        (0.2, 0.7, 0.1, 0.5, 1.5),
        (0.3, 0.4, 0.3, 0.3, 1.2),
    ]
    noises = [
        (n.gaussian_probability, n.sigma, n.poisson_scale, n.grey_probability)
        for n in (full.noise, light.noise, full.second.noise)
    ]
    assert noises == [
        (0.5, (1, 30), (0.05, 3), 0.4),
        (0.3, (1, 20), (0.05, 2), 0.2),
        (0.5, (1, 25), (0.05, 2.5), 0.4),
    ]

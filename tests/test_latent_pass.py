"""A picture from windows that are joined as latents."""

import itertools

import pytest
import torch
from tests.published_varsr import make_varsr
from torch import Tensor

from nsarm_cli.imaging.rows import Rows
from nsarm_cli.imaging.tiles import plan
from nsarm_cli.latent_pass import LatentBlend, LatentPass
from nsarm_cli.models.interface import JoinsLatents, TakesGuidance, TakesText
from nsarm_cli.models.varsr.resolver import VarsrResolver
from nsarm_cli.models.varsr.windows import window_weights
from nsarm_cli.passes import PassSettings
from nsarm_cli.runtime import window_generator

CPU = torch.device("cpu")


class Smooth:
    """Its latents are the low-resolution pixels in the middle of each; decoding repeats them."""

    scale, window, overlap, pixels_per_latent = 4, 32, 8, 4
    latent_weights = window_weights(8)
    decoded: list[tuple[int, int]]

    def __init__(self):
        self.decoded = []

    def features(self, lr, generators, sampling, on_scale=None, trace=None):
        return torch.nn.functional.avg_pool2d(lr, 4)

    def decode(self, feature):
        self.decoded.append(tuple(feature.shape[-2:]))
        return feature.repeat_interleave(16, -2).repeat_interleave(16, -1)


def enlarge(resolver, lr: Tensor, side: int = 64, sampling=None) -> Tensor:
    rows = LatentPass(resolver, CPU, 2, None, side)(
        Rows.of(lr), PassSettings(0, sampling, color="none")
    )
    result = torch.cat(list(rows.strips), dim=1)
    assert result.shape == (3, rows.height, rows.width)
    return result


def test_latents_that_agree_are_joined_without_a_trace_of_windows():
    lr = torch.rand(3, 60, 92, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = torch.nn.functional.avg_pool2d(lr, 4)
    wanted = wanted.repeat_interleave(16, -2).repeat_interleave(16, -1)
    resolver = Smooth()
    torch.testing.assert_close(enlarge(resolver, lr), wanted, atol=1e-6, rtol=0)
    assert resolver.decoded == [(15, 23)]
    in_parts = Smooth()
    torch.testing.assert_close(enlarge(in_parts, lr, side=8), wanted, atol=1e-6, rtol=0)
    assert len(in_parts.decoded) > 4


@pytest.mark.parametrize("size", [(3, 5), (32, 33), (61, 35), (90, 200)])
def test_the_result_is_exactly_four_times_as_large(size):
    lr = torch.zeros(3, *size)
    assert enlarge(Smooth(), lr, side=8).shape == (3, 4 * size[0], 4 * size[1])


def test_weights_of_a_blend_sum_to_one():
    weights = window_weights(8)
    blend = LatentBlend((19, 11), weights)
    for window in plan(19, 11, 8, 2):
        blend.add(torch.ones(2, 8, 8), window)
    torch.testing.assert_close(blend.result(), torch.ones(2, 19, 11))


@pytest.fixture(scope="module")
def resolver() -> VarsrResolver:
    return VarsrResolver(make_varsr())


def test_varsr_joins_latents_takes_guidance_and_no_text(resolver):
    assert isinstance(resolver, JoinsLatents)
    assert isinstance(resolver, TakesGuidance)
    assert not isinstance(resolver, TakesText)


def test_gradients_across_borders_of_windows_are_as_elsewhere(resolver):
    """No line where windows end stands out from the other lines between latents.

    Weights are random, so windows disagree on content; the few lines vary by some 20 %.
    """
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    lr = torch.stack([x / 48, y / 48, (x + y) / 96]) * 1.6 - 0.8
    sr = enlarge(resolver, lr, sampling=resolver.sampling)
    across = (sr[:, :, 1:] - sr[:, :, :-1]).abs().mean((0, 1))
    starts = {w.left for w in plan(12, 12, 4, 1)}
    borders = {16 * b for b in starts | {s + 4 for s in starts} if 0 < b < 12}
    lines = torch.arange(1, 192)
    # A decoder treats the lines between latents alike, but not as those inside of them.
    at = torch.tensor([bool(int(line) in borders) for line in lines])
    between = (lines % 16 == 0) & ~at
    ratio = float(across[at].mean() / across[between].mean())
    assert ratio == pytest.approx(1, abs=0.25)


def test_a_window_alone_is_what_the_pass_makes_of_a_picture_of_its_size(resolver):
    lr = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    alone = resolver.resolve(lr[None], [window_generator(0, 0)], resolver.sampling)
    torch.testing.assert_close(enlarge(resolver, lr, sampling=resolver.sampling), alone[0])


def test_a_batch_on_a_processor_gives_each_window_its_own_result(resolver):
    lr = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    together = resolver.resolve(lr, [window_generator(0, i) for i in range(3)], resolver.sampling)
    for i, one in enumerate(lr):
        alone = resolver.resolve(one[None], [window_generator(0, i)], resolver.sampling)
        assert torch.equal(together[i], alone[0])
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(together))

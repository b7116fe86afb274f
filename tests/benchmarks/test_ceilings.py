"""Where a model loses is measured on pictures between its own and the best its bits allow."""

import pytest
import torch
from PIL import Image

from nsarm_cli.imaging.tensors import resize_bicubic, to_image
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.pipeline import Upscaler


@pytest.fixture
def ceilings(script):
    return script("ceilings")


@pytest.fixture(scope="module")
def resolver():
    return Upscaler.from_pretrained("nsarm-nano", device="cpu", precision="fp32").resolver


@pytest.fixture
def hr():
    coarse = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return resize_bicubic(coarse, (256, 256))


@torch.no_grad()
def test_true_bits_of_all_scales_are_the_autoencoders_round_trip(ceilings, resolver, hr):
    model = resolver.model
    residuals, codes = model.pyramid.decompose(model.autoencoder.encode(hr), bsq.quantise)
    wanted = model.decode(model.pyramid.compose(codes))
    assert torch.equal(ceilings.true_bits(model, hr, []), wanted)
    assert torch.equal(ceilings.true_bits(model, hr, residuals), wanted)
    known = model.preliminary_residuals(resize_bicubic(hr, (64, 64)))
    assert not torch.equal(ceilings.true_bits(model, hr, known), wanted)


def test_distances_are_of_the_middle_of_pictures_of_the_same_name(ceilings, resolver, hr, tmp_path):
    class Difference:
        def __call__(self, a, b):
            return (a - b).abs().mean()

    lr_path, hr_path = tmp_path / "a.png", tmp_path / "hr" / "a.png"
    hr_path.parent.mkdir()
    to_image(torch.nn.functional.pad(hr[0], (8, 8, 16, 16), value=-1)).save(hr_path)
    to_image(resize_bicubic(hr, (64, 64))[0]).save(lr_path)
    others = {"itself": hr_path.parent}
    found = ceilings.measure(resolver, Difference(), [(lr_path, hr_path)], others)
    assert next(iter(found)) == "bicubic"
    assert found["itself"] == 0
    assert 0 < found["all bits true"] < 0.2

    Image.new("RGB", (200, 300)).save(hr_path)
    with pytest.raises(ValueError, match="has no 256 x 256 pixels"):
        ceilings.middle(hr_path, 256)

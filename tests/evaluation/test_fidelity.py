"""PSNR, SSIM and faithfulness, against numbers of pyiqa 0.1.16 and by their algebra."""

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.evaluation.fidelity import color_shift, lr_psnr, psnr_y, ssim_y
from nsarm_cli.evaluation.resize import resize_matlab

# Measured on the very pictures of `damaged` with pyiqa's "psnr" and "ssim" on the Y of YCbCr.
PUBLISHED = {
    "same": (80.0, 1.0),
    "blur": (26.213056564331055, 0.9114178019377756),
    "dark": (53.49208450317383, 0.9974607302642126),
    "flat": (10.173264503479004, 0.6009383905449698),
    "wide": (24.21996307373047, 0.8224155122314928),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_values_are_those_of_published_tables(damaged, name):
    psnr, ssim = PUBLISHED[name]
    assert float(psnr_y(*damaged(name))) == pytest.approx(psnr, abs=1e-5)
    assert float(ssim_y(*damaged(name))) == pytest.approx(ssim, abs=1e-6)


def test_ssim_is_symmetric_and_psnr_falls_by_a_known_error(damaged):
    sr, gt = damaged("wide")
    assert float(ssim_y(sr, gt)) == pytest.approx(float(ssim_y(gt, sr)), abs=1e-12)
    grey = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    # Ten levels of grey are ten times 219/255 levels of studio luma.
    expected = -20 * np.log10(10 * 219 / 255 / 255)
    assert float(psnr_y(grey + 10, grey)) == pytest.approx(expected, abs=1e-3)


def test_the_reduction_is_that_of_pillow_but_for_rounding_and_the_edges(damaged):
    """Pillow has the same kernel; it cuts it at borders, and rounds and clamps between axes."""
    picture = damaged("same")[0][0]
    ours = resize_matlab(picture, (64, 64)).clamp(0, 255).permute(1, 2, 0).numpy()
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    theirs = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC), dtype=float)
    difference = np.abs(ours - theirs)[2:-2, 2:-2]
    assert np.quantile(difference, 0.99) < 1.01
    assert difference.mean() < 0.4


def test_resizing_keeps_constants_means_and_pictures_of_the_same_size():
    x = torch.rand(3, 24, 36, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(resize_matlab(x, (24, 36)), x)
    grey = torch.full((1, 10, 14), 0.3).double()
    for size in ((5, 7), (4, 9), (31, 14)):
        torch.testing.assert_close(resize_matlab(grey, size), torch.full((1, *size), 0.3).double())
    assert float(resize_matlab(x, (12, 18)).mean()) == pytest.approx(float(x.mean()), abs=1e-3)


def test_faithfulness_sees_a_colour_cast_and_little_else_of_an_exact_enlargement(damaged):
    lr = damaged("same")[0]
    sr = lr.repeat_interleave(2, -1).repeat_interleave(2, -2)
    cast = sr.clone()
    cast[:, 1] = (cast[:, 1].int() + 7).clamp(0, 255).to(torch.uint8)
    assert float(color_shift(sr, lr)) < 0.05
    assert float(color_shift(cast, lr)) == pytest.approx(7, abs=0.3)
    assert float(lr_psnr(sr, lr)) > float(lr_psnr(cast, lr)) > 25

"""Spectra are told apart by what was done to the pictures."""

import math

import pytest
import torch

from nsarm_cli.degradation.kernels import anisotropic_kernel, filter2d
from nsarm_cli.imaging.tensors import resize_bicubic, to_image

BANDS = (0.1, 0.2, 0.3, 0.45)


@pytest.fixture
def spectra(script):
    return script("spectra")


@pytest.fixture
def noise():
    """A flat spectrum, "1 3 128 128" in [-1, 1]."""
    drawn = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    return (drawn / 4).clamp(-1, 1).expand(1, 3, 128, 128)


@pytest.mark.parametrize(("frequency", "band"), [(0.15, 0), (0.25, 1), (0.375, 2)])
def test_a_wave_is_found_in_its_own_band_whatever_its_direction(spectra, frequency, band):
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    for angle in (0.0, 0.6, math.pi / 2):
        phase = math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle))
        powers = spectra.band_powers(torch.sin(phase).expand(1, 3, 128, 128), BANDS)
        assert powers.index(max(powers)) == band
        assert max(powers) > 50 * sum(p for p in powers if p != max(powers))


def test_a_blur_is_told_as_the_gaussian_that_it_is(spectra, noise):
    sigma = 0.8
    blurred = filter2d(noise, anisotropic_kernel(21, (sigma, sigma)))
    edges = (0.30, 0.32)
    ratio = spectra.band_powers(blurred, edges)[0] / spectra.band_powers(noise, edges)[0]
    assert ratio == pytest.approx(math.exp(-((sigma * math.pi * 0.31) ** 2)), rel=0.05)


def test_an_input_keeps_low_frequencies_and_a_blurred_one_fewer(spectra, noise):
    smooth = filter2d(noise, anisotropic_kernel(21, (2.0, 2.0)))
    plain = spectra.kept((smooth, resize_bicubic(smooth, (32, 32))))
    blurred = filter2d(smooth, anisotropic_kernel(21, (3.0, 3.0)))
    lost = spectra.kept((smooth, resize_bicubic(blurred, (32, 32))))
    assert plain[0] == pytest.approx(1, abs=0.05)
    assert all(a < b for a, b in zip(lost, plain, strict=True))


def test_tables_of_files_and_of_a_recipe(spectra, noise, tmp_path, capsys):
    hr, lr = tmp_path / "hr", tmp_path / "lr"
    for folder, picture in ((hr, noise), (lr, resize_bicubic(noise, (32, 32)))):
        folder.mkdir()
        to_image(picture[0]).save(folder / "a.png")

    def table(*options):
        spectra.main(["--hr", str(hr), "--side", "128", *options])
        lines = capsys.readouterr().out.splitlines()
        return [[float(x) for x in row.split("|")[2:-1]] for row in lines if "median" in row]

    (of_files, kept), (of_camera, _) = table("--lr", str(lr)), table("--recipe", "camera")
    assert kept[0] == pytest.approx(1, abs=0.1)
    assert of_files == pytest.approx([1] * len(of_files), abs=0.25)  # noise is alike everywhere
    assert of_camera[-1] < 0.5 < of_files[-1]


def test_a_folder_without_pictures_is_refused(spectra, tmp_path, capsys):
    with pytest.raises(SystemExit):
        spectra.main(["--hr", str(tmp_path), "--recipe", "camera"])
    assert "has no .png" in capsys.readouterr().err

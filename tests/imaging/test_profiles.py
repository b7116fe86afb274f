"""Colours go to sRGB and come back, in 16 bits."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from nsarm_cli.imaging.profiles import Profile


def test_srgb_is_known_as_such_and_others_are_not(icc):
    assert Profile(icc.srgb).is_srgb
    assert not Profile(icc.wide).is_srgb
    assert not Profile(icc.grey).is_srgb


def test_channels_are_those_of_the_profile(icc):
    assert [Profile(data).channels for data in (icc.grey, icc.wide)] == [1, 3]


def test_eight_bits_are_converted_as_pillow_does(icc):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    ours = Profile(icc.wide).to_srgb(pixels) / 257
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc.wide))
    image = ImageCms.profileToProfile(
        Image.fromarray(pixels), source, ImageCms.createProfile("sRGB"), renderingIntent=1
    )
    assert np.abs(ours - np.asarray(image)).max() <= 1.01


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_that_srgb_has_come_back(icc, bits):
    profile = Profile(icc.wide)
    top = 2**bits - 1
    muted = np.random.default_rng(0).integers(top // 3, top // 2, (20, 30, 3))
    muted = muted.astype(np.uint8 if bits == 8 else np.uint16)
    again = profile.from_srgb(profile.to_srgb(muted), bits)
    assert again.dtype == muted.dtype
    assert np.abs(again.astype(int) - muted).max() <= (0 if bits == 8 else 24)


def test_grey_comes_back_as_one_channel(icc):
    grey = np.arange(4096, 65536, 13, dtype=np.uint16).reshape(1, -1, 1)
    profile = Profile(icc.grey)
    converted = profile.to_srgb(grey)
    assert converted.shape == (1, grey.shape[1], 3)
    again = profile.from_srgb(converted, 16)
    assert again.shape == grey.shape
    assert np.abs(again.astype(int) - grey).max() < 40


def test_a_damaged_profile_is_refused(icc):
    for data in (b"", b"x" * 300, icc.srgb[:400], icc.srgb[:128] + b"\0" * 200):
        with pytest.raises(ValueError, match="the profile"):
            Profile(data)


def test_a_profile_of_other_colours_is_refused():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with pytest.raises(ValueError, match="Lab colours"):
        Profile(lab)

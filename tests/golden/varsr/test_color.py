"""Colour corrections of whole pictures, against the authors' code."""

import pytest
import torch

from nsarm_cli.imaging.color import adain, wavelet


@pytest.mark.parametrize("correct", [adain, wavelet])
def test_corrected_pictures_are_the_recorded_ones(correct, golden):
    recorded = golden("varsr/colour_fix")

    def picture(name: str) -> torch.Tensor:
        return recorded[name].permute(2, 0, 1)[None].float() / 255

    made = correct(picture("target_u8"), picture("source_u8")).clamp(0, 1)
    # The authors cut off what is between two levels.
    levels = (made * 255).to(torch.uint8)[0].permute(1, 2, 0)
    theirs = recorded[f"{correct.__name__}_u8"]
    off = (levels.int() - theirs.int()).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() < 1e-3  # where rounding decides

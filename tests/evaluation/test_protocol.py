"""What the protocols do with sizes."""

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.evaluation.protocol import Protocol, describe, input_of, judged_size, to_judge

NATIVE, PAPER = Protocol.NATIVE, Protocol.PAPER


def picture(width, height):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_native_gives_the_input_as_it_is():
    lr = picture(32, 24)
    assert input_of(lr, (128, 96), NATIVE, "x") is lr
    assert judged_size(lr.size, (128, 96), NATIVE) == (128, 96)
    assert judged_size(lr.size, None, NATIVE) == (128, 96)


def test_paper_enlarges_the_input_twice_with_pillows_bicubic_and_halves_the_output():
    lr, made = picture(32, 24), picture(256, 192)
    given = input_of(lr, (128, 96), PAPER, "x")
    assert given.tobytes() == lr.resize((64, 48), Image.Resampling.BICUBIC).tobytes()
    halved = made.resize((128, 96), Image.Resampling.BICUBIC)
    assert to_judge(made, (128, 96), PAPER, "x").tobytes() == halved.tobytes()


def test_without_a_reference_paper_judges_half_of_the_output():
    lr = picture(32, 24)
    assert input_of(lr, None, PAPER, "x") is lr
    assert judged_size(lr.size, None, PAPER) == (64, 48)


def test_inputs_that_were_enlarged_already_are_told_apart():
    lr = picture(64, 48)
    assert input_of(lr, (128, 96), PAPER, "x") is lr
    with pytest.raises(ConfigError, match="pass --protocol paper"):
        input_of(lr, (128, 96), NATIVE, "x")


def test_sizes_that_do_not_belong_together_are_refused():
    with pytest.raises(ImageError, match="x: is 32x24 and its reference 100x96"):
        input_of(picture(32, 24), (100, 96), NATIVE, "x")
    with pytest.raises(ImageError, match="m/a: is 256x192, twice the 128x96"):
        to_judge(picture(256, 192), (128, 96), NATIVE, "m/a")
    with pytest.raises(ImageError, match=r"m/a: is 50x50, but 128x96 is judged \(or twice that\)"):
        to_judge(picture(50, 50), (128, 96), PAPER, "m/a")


def test_the_report_names_every_step():
    b = "(Pillow bicubic)"
    assert describe(PAPER, (128, 128), (512, 512)) == (
        f"paper: 128x128 to 256x256 {b} to 1024x1024 (method) to 512x512 {b}"
    )
    assert describe(NATIVE, (128, 128), (512, 512)) == "native: 128x128 to 512x512 (method)"
    assert describe(PAPER, (256, 256), None) == (
        f"paper: 256x256 to 1024x1024 (method) to 512x512 {b}"
    )

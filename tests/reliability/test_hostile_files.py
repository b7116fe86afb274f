"""Spoilt files of every kind are refused in one sentence, or used where nothing is wrong.

`benchmarks/reliability.py` tries many more and prints the table of docs/reliability.md.
"""

import random

import pytest
from PIL import Image
from tests.reliability.models import save_small_model
from tests.reliability.mutations import mutate, valid_files
from tests.reliability.trials import Trials

from nsarm_cli.imaging.formats import readable_formats
from nsarm_cli.imaging.picture import read_picture


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials")
    with pytest.MonkeyPatch.context() as patch:
        # What is tried is what becomes of the bytes, not of the power supply.
        patch.setattr("nsarm_cli.imaging.atomic.os.fsync", lambda _: None)
        yield Trials(folder, save_small_model(folder / "whole"))


def test_the_pictures_to_be_spoilt_are_valid_and_of_every_format_that_is_read(tmp_path):
    formats = set()
    for name, data in valid_files().items():
        path = tmp_path / name
        path.write_bytes(data)
        picture = read_picture(path)
        assert (picture.width, picture.height) in {(24, 18), (18, 24)}
        with Image.open(path) as image:
            formats.add(image.format)
    assert formats == set(readable_formats())


def test_mutations_repeat_and_differ():
    assert mutate("rgb.png", random.Random(1)) == mutate("rgb.png", random.Random(1))
    assert len({mutate("rgb.png", random.Random(i)) for i in range(50)}) > 45


@pytest.mark.parametrize("block", range(8))
def test_spoilt_pictures(trials, block):
    outcomes = [trials.picture(case) for case in range(250 * block, 250 * (block + 1))]
    assert set(outcomes) == {"refused", "used"}


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("model folders", 40),
        ("checkpoints", 100),
        ("catalogues", 200),
        ("prompt files", 200),
        ("prompt features", 200),
    ],
)
def test_other_spoilt_files(trials, kind, count):
    outcomes = [trials.kinds[kind](case) for case in range(count)]
    assert set(outcomes) == {"refused", "used"}

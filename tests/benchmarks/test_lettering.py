"""Pictures with lettering are a shard for training, the same for a seed, and have sharp edges."""

import tarfile

import numpy as np
import pytest
from PIL import Image, ImageFont

from nsarm_cli.training.listing import list_pictures
from nsarm_cli.training.photos import decode


@pytest.fixture
def made(script, tmp_path):
    """Make shards from one soft photograph and the font that Pillow holds."""
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "one.ttf").write_bytes(ImageFont.load_default(10).font_bytes)
    (tmp_path / "photographs").mkdir()
    ramp = np.linspace(60, 200, 512).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (512, 1))).save(tmp_path / "soft.png")
    with tarfile.open(tmp_path / "photographs" / "0.tar", "w") as tar:
        tar.add(tmp_path / "soft.png", "soft.png")

    def make(name, seed):
        out = tmp_path / name
        arguments = ["--data", tmp_path / "photographs", "--fonts", tmp_path / "fonts"]
        arguments += ["--count", 2, "--seed", seed, "--out", out]
        script("lettering").main([str(argument) for argument in arguments])
        return out

    return make


def test_a_seed_makes_the_same_shard_and_another_another(made):
    first, again, other = (made(f"{n}.tar", seed).read_bytes() for n, seed in enumerate((0, 0, 1)))
    assert first == again
    assert first != other


def test_training_reads_the_shard_and_finds_edges_that_the_photograph_has_not(made):
    pictures = [decode(record) for record in list_pictures([made("0.tar", 0)]).records]
    assert [picture.shape for picture in pictures] == [(512, 512, 3)] * 2
    steps = [np.abs(np.diff(picture.astype(int), axis=1)).max() for picture in pictures]
    assert min(steps) > 40


def test_no_fonts_end_with_a_sentence(made, tmp_path, capsys):
    (tmp_path / "fonts" / "one.ttf").unlink()
    with pytest.raises(SystemExit):
        made("0.tar", 0)
    assert "has no .ttf or .otf font; name a folder that has" in capsys.readouterr().err

"""Training pictures are read once, and what is wrong with them is told."""

import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.cli.main import main


@pytest.fixture
def photos(tmp_path):
    """Two squares, a wide one, and a small one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in {
        "a": (96, 96), "b": (80, 80), "wide": (60, 80), "small": (40, 40),
    }.items():  # fmt: skip
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def check(capsys):
    def run(*arguments):
        code = main(["train", "check-data", *(str(argument) for argument in arguments)])
        return code, *capsys.readouterr()

    return run


def test_a_sound_set_is_described(check, photos):
    code, out, _ = check("--data", photos, "--crop", 48, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["pictures"] == 4
    assert told["height"] == {"least": 40, "median": 80, "most": 96}
    assert told["ratios"] == {"1": 3, "0.75": 1}
    assert [line.split(": ")[1] for line in told["smaller_than_a_crop"]] == [
        "small.png has 40 x 40 pixels"
    ]
    assert told["corrupt"] == told["copies"] == told["wrong_counts"] == []
    assert told["expected_crops_per_second"] > 0


def test_workers_multiply_the_speed(check, photos):
    told = json.loads(check("--data", photos, "--crop", 48, "--workers", 3, "--json")[1])
    one = told["decoded_per_second_and_process"], told["crops_per_second_and_process"]
    wanted = 3 / (1 / one[0] + 1 / one[1])
    assert told["expected_crops_per_second"] == pytest.approx(wanted, rel=0.05)


def test_what_is_wrong_is_named_and_ends_with_code_3(check, photos):
    (photos / "broken.jpg").write_bytes(b"no picture")
    with Image.open(photos / "a.png") as image:
        image.save(photos / "again.bmp")
    (photos / "b.txt").write_text("a caption")
    code, out, err = check("--data", photos, "--crop", 32)
    assert code == 3
    assert "broken.jpg cannot be decoded" in out
    assert "same pixels: 1" in out
    assert "a.png, " in out
    assert "again.bmp" in out
    assert "captions: 1 long, 0 short" in out
    assert "1 pictures, captions, lines or shards cannot be used" in err
    assert "Traceback" not in err


def test_a_list_is_held_to_its_word(check, photos):
    entries = [
        {"image_path": "a.png", "h_div_w": 1.0, "long_caption": "x", "text": "y"},
        {"image_path": "wide.png", "h_div_w": 1.0},
        {"image_path": "absent.png"},
    ]
    path = photos / "1.000_000000009.jsonl"
    path.write_text("\n".join(json.dumps(entry) for entry in entries) + "\nno json\n")
    code, out, _ = check("--data", path, "--crop", 32, "--json")
    told = json.loads(out)
    assert code == 3
    assert "has 4 lines, not 9 as its name says" in told["wrong_counts"][0]
    assert "wide.png has ratio 0.750, not 1.000" in told["wrong_ratios"][0]
    assert len(told["corrupt"]) == 2
    assert "line 4 cannot be used" in told["corrupt"][0]
    assert "absent.png cannot be decoded" in told["corrupt"][1]
    assert (told["pictures"], told["long_captions"], told["short_captions"]) == (2, 1, 1)


def test_shards_from_elsewhere_are_read_too(check, photos, tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(photos / "a.png", "a.png")
        archive.add(photos / "b.png", "b.png")
    shutil.rmtree(photos)
    code, out, _ = check("--data", f"pipe:cat {tmp_path}/s.tar", "--crop", 32, "--json")
    assert code == 0
    assert json.loads(out)["pictures"] == 2
    code, out, _ = check("--data", "pipe:echo none", "--crop", 32, "--json")
    assert code == 3
    assert "not a readable tar shard" in json.loads(out)["corrupt"][0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--degradation", "rain"], '"rain" is unknown; choose one of realesrgan'),
        (["--crop", "50"], "50 pixels do not suit; give a multiple of 4"),
    ],
)
def test_options_that_cannot_work_are_refused(check, photos, options, reason):
    code, _, err = check("--data", photos, *options)
    assert code == 2
    assert reason in " ".join(err.split())


def test_nothing_to_read_is_named(check, tmp_path):
    code, _, err = check("--data", tmp_path)
    assert code == 6
    assert "no pictures found" in err

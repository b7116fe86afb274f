"""Sets of crops: what is made, from what, that it is made once, and what is refused."""

import hashlib
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.degradation import REALESRGAN, degrade
from nsarm_cli.degradation.draws import unit
from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.evaluation.crops import DIV2K, open_crops
from nsarm_cli.evaluation.pictures import pixel_digest
from nsarm_cli.imaging.tensors import to_image, to_tensor
from nsarm_cli.runtime import window_generator

NAMES = ("0801", "0802", "0803")
RULE = replace(DIV2K, photographs=replace(DIV2K.photographs, names=NAMES), count=3, side=64)


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with three photographs; the second is not as high as a crop."""
    folder = tmp_path / "data" / "DIV2K_valid_HR"
    folder.mkdir(parents=True)
    photo = Image.open(Path(__file__).parents[1] / "goldens" / "photos" / "coffee_256.png")
    for name, box in zip(
        NAMES, ((0, 0, 90, 80), (40, 40, 130, 100), (100, 100, 200, 164)), strict=True
    ):
        photo.crop(box).save(folder / f"{name}.png")
    return tmp_path / "data"


def manifest(root: Path) -> list[dict[str, object]]:
    lines = (root / "DIV2K-64" / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_set_of_the_paper_has_100_crops_of_1024_of_the_validation_photographs():
    assert (DIV2K.count, DIV2K.side, DIV2K.recipe) == (100, 1024, "realesrgan")
    assert len(DIV2K.photographs.names) == 100
    assert DIV2K.photographs.names[0] == "0801"
    assert DIV2K.photographs.names[-1] == "0900"


def test_crops_are_cut_and_degraded_as_the_manifest_says(root):
    found = open_crops(RULE, root)
    # The second is too small, so the first gives two.
    assert [item.name for item in found.items] == ["0801", "0801-2", "0803"]
    assert found.has_references
    assert "3 crops of 64 from DIV2K_valid_HR, degraded by realesrgan with seed 0" in found.source
    lines = {str(line["key"]): line for line in manifest(root)}
    for number, key in enumerate(("0801", "0803", "0801-2")):
        line = lines[key]
        source = root / "DIV2K_valid_HR" / str(line["source"])
        assert line["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
        with Image.open(source) as photograph:
            crop = photograph.convert("RGB").crop(line["box"])
        assert crop.size == (64, 64)
        gt = Image.open(root / "DIV2K-64" / str(line["gt"]))
        lr = Image.open(root / "DIV2K-64" / str(line["lr"]))
        assert np.array_equal(gt, crop)
        rng = window_generator(0, number)
        unit(rng), unit(rng)  # the two that placed the crop
        again = degrade(to_tensor(crop)[None].mul(0.5).add(0.5), REALESRGAN, [rng])[0]
        assert np.array_equal(lr, to_image(again.mul(2).sub(1)))
        assert (line["lr_pixels"], line["gt_pixels"]) == (pixel_digest(lr), pixel_digest(gt))
        assert line["recipe"]["name"] == "realesrgan"
        # A kind of step that came later leaves sets made before it valid.
        assert "reference_blur" not in line["recipe"]
    assert lines["0801"]["box"] != lines["0801-2"]["box"]


def test_a_set_is_made_once_and_needs_no_photographs_after(root):
    told: list[str] = []
    open_crops(RULE, root, on_picture=told.append)
    assert told == ["0801", "0803", "0801-2"]
    before = files(root / "DIV2K-64")
    shutil.rmtree(root / "DIV2K_valid_HR")
    again = open_crops(RULE, root, 2, on_picture=told.append)
    assert len(told) == 3
    assert [item.name for item in again.items] == ["0801", "0801-2"]
    assert files(root / "DIV2K-64") == before


@pytest.mark.parametrize("prefix", ["DIV2K_valid_HR/", ""])
def test_the_published_zip_gives_the_same_set(root, tmp_path, prefix):
    open_crops(RULE, root)
    other = tmp_path / "zipped"
    other.mkdir()
    with zipfile.ZipFile(other / "DIV2K_valid_HR.zip", "w") as archive:
        for name in NAMES:
            archive.write(root / "DIV2K_valid_HR" / f"{name}.png", f"{prefix}{name}.png")
    open_crops(RULE, other)
    assert files(other / "DIV2K-64") == files(root / "DIV2K-64")
    assert {p.name for p in other.iterdir()} == {"DIV2K_valid_HR.zip", "DIV2K-64"}


def test_photographs_may_lie_in_the_folder_itself(root):
    open_crops(RULE, root / "DIV2K_valid_HR")
    assert (root / "DIV2K_valid_HR" / "DIV2K-64" / "manifest.jsonl").is_file()


def test_a_set_of_another_rule_is_refused_and_left_alone(root):
    open_crops(RULE, root)
    before = files(root)
    for change, word in (({"seed": 1}, "seed"), ({"recipe": "realesrgan-light"}, "recipe")):
        with pytest.raises(ConfigError, match=f"was made with another {word}; remove .*DIV2K-64"):
            open_crops(replace(RULE, **change), root)
    assert files(root) == before
    path = root / "DIV2K-64" / "manifest.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    with pytest.raises(ConfigError, match="has 2 of 3 pictures"):
        open_crops(RULE, root)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="is not the manifest of DIV2K"):
        open_crops(RULE, root)


@pytest.mark.parametrize("part", ["lr", "gt"])
def test_a_changed_picture_is_refused(root, part):
    open_crops(RULE, root)
    path = root / "DIV2K-64" / part / "0803.png"
    with Image.open(path) as picture:
        picture.rotate(90).save(path)
    with pytest.raises(ImageError, match=r"0803.png: is not the picture that was made"):
        open_crops(RULE, root)


def test_missing_photographs_are_told_with_their_address(root, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ImageError) as refused:
        open_crops(RULE, empty)
    assert "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip" in str(refused.value)
    assert "a folder DIV2K_valid_HR with 0801.png to 0803.png" in str(refused.value)
    (root / "DIV2K_valid_HR" / "0802.png").unlink()
    with pytest.raises(ImageError, match=r"lacks 1 of the 3 photographs of DIV2K.* 0802.png"):
        open_crops(RULE, root)


def test_an_interrupted_run_goes_on_to_the_same_set(root, tmp_path, monkeypatch):
    shutil.copytree(root, tmp_path / "other")
    open_crops(RULE, tmp_path / "other")
    expected = files(tmp_path / "other" / "DIV2K-64")
    last = root / "DIV2K_valid_HR" / "0803.png"
    content = last.read_bytes()
    last.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ImageError, match=r"0803.png"):
        open_crops(RULE, root)
    assert not (root / "DIV2K-64").exists()
    last.write_bytes(content)
    made = []

    def counted(*arguments):
        made.append(arguments)
        return degrade(*arguments)

    monkeypatch.setattr("nsarm_cli.evaluation.crops.degrade", counted)
    open_crops(RULE, root)
    assert len(made) == 2
    assert files(root / "DIV2K-64") == expected
    assert {p.name for p in root.iterdir()} == {"DIV2K_valid_HR", "DIV2K-64"}


def test_an_interrupted_run_of_other_photographs_is_not_used(root, tmp_path):
    first, last = (root / "DIV2K_valid_HR" / f"{name}.png" for name in ("0801", "0803"))
    content = last.read_bytes()
    last.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ImageError, match=r"0803.png"):
        open_crops(RULE, root)
    last.write_bytes(content)
    first.write_bytes(content)
    open_crops(RULE, root)
    digests = {line["source_sha256"] for line in manifest(root)}
    assert digests == {hashlib.sha256(content).hexdigest()}


def test_photographs_that_are_all_too_small_leave_nothing(root):
    with pytest.raises(ImageError, match="no photograph is 640 pixels wide and high"):
        open_crops(replace(RULE, side=640), root)
    assert [p.name for p in root.iterdir()] == ["DIV2K_valid_HR"]


def test_a_damaged_zip_is_refused(tmp_path):
    path = tmp_path / "DIV2K_valid_HR.zip"
    path.write_bytes(b"PK broken")
    with pytest.raises(
        ImageError, match="is damaged or incomplete; get it again from https://data"
    ):
        open_crops(RULE, tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        for name in NAMES:
            archive.writestr(f"{name}.png", b"the picture" * 9)
    path.write_bytes(path.read_bytes().replace(b"picturethe", b"picture-he"))
    with pytest.raises(ImageError, match="is damaged or incomplete"):
        open_crops(RULE, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]

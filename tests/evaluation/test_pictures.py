"""Finding and pairing pictures, and what is said when they do not pair."""

import json

import pytest
from PIL import Image

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.evaluation.pictures import (
    find_set,
    match_outputs,
    pixel_digest,
    read_captions,
)


def test_inputs_and_references_pair_by_name(make_set):
    found = find_set(make_set())
    assert found.name == "pictures"
    assert [item.name for item in found.items] == ["a", "b", "c"]
    assert found.has_references
    assert {(i.lr.parent.name, i.gt.parent.name) for i in found.items} == {("lr", "gt")}
    assert [item.name for item in found.first(2).items] == ["a", "b"]


@pytest.mark.parametrize(("lr", "gt"), [("test_LR", "test_HR"), ("LQ", "HR"), ("lr128", "gt512")])
def test_other_names_of_the_two_folders_are_known(make_set, lr, gt):
    folder = make_set()
    (folder / "lr").rename(folder / lr)
    (folder / "gt").rename(folder / gt)
    assert find_set(folder).has_references


def test_a_plain_folder_is_inputs_without_references(make_set):
    found = find_set(make_set(gt=False) / "lr")
    assert not found.has_references
    assert len(found.items) == 3


def test_a_manifest_names_pictures_wherever_they_lie(make_set):
    folder = make_set(("a",))
    line = {"key": "x", "lr": "lr/a.png", "gt": "gt/a.png", "caption": "a cat"}
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n\n")
    (item,) = find_set(folder).items
    assert (item.name, item.caption, item.gt) == ("x", "a cat", folder / "gt/a.png")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"key": "x"}', "line 1 must have the texts key and lr"),
        ("", "names no pictures"),
        ('{"key": "../x", "lr": "lr/a.png"}', r"the key '\.\./x', which is no file name"),
        ('{"key": "..", "lr": "lr/a.png"}', "is no file name"),
        ('{"key": "a\\\\x", "lr": "lr/a.png"}', "is no file name"),
    ],
)
def test_a_damaged_manifest_is_named_with_its_line(make_set, line, message):
    folder = make_set()
    (folder / "manifest.jsonl").write_text(line)
    with pytest.raises(ConfigError, match=message):
        find_set(folder)


def test_a_manifest_of_missing_files_or_half_of_the_references_is_refused(make_set):
    folder = make_set()
    manifest = folder / "manifest.jsonl"
    manifest.write_text('{"key": "x", "lr": "lr/none.png"}')
    with pytest.raises(ImageError, match=r"none\.png: is missing"):
        find_set(folder)
    manifest.write_text(
        '{"key": "x", "lr": "lr/a.png"}\n{"key": "y", "lr": "lr/b.png", "gt": "gt/b.png"}'
    )
    with pytest.raises(ImageError, match="x has no reference but others have"):
        find_set(folder)


def test_missing_pictures_are_counted_and_named(make_set):
    folder = make_set()
    (folder / "gt" / "b.png").unlink()
    with pytest.raises(ImageError, match=r"gt: lacks 1 of 3 pictures, the first is b;"):
        find_set(folder)
    (folder / "lr" / "b.png").rename(folder / "lr" / "z.png")
    (folder / "gt" / "a.png").rename(folder / "gt" / "b.png")
    with pytest.raises(ImageError, match="the first is a, and has b instead"):
        find_set(folder)


def test_missing_and_empty_folders_are_named(tmp_path, make_set):
    with pytest.raises(ImageError, match="no such folder of pictures"):
        find_set(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no pictures"):
        find_set(tmp_path / "empty")
    folder = make_set()
    (folder / "lr").rename(folder / "others")
    with pytest.raises(ImageError, match="has references in gt but no folder of inputs"):
        find_set(folder)


def test_two_files_of_one_name_are_refused(make_set):
    folder = make_set()
    (folder / "lr" / "a.jpg").write_bytes((folder / "lr" / "a.png").read_bytes())
    with pytest.raises(ImageError, match=r"has the same name as a\.jpg"):
        find_set(folder)


def test_outputs_may_have_the_ending_that_upscale_adds(make_set, make_outputs):
    pictures = make_set()
    outputs = make_outputs("m", pictures, 5)
    (outputs / "b.png").rename(outputs / "b_x4.png")
    found = match_outputs(find_set(pictures), outputs)
    assert found["b"].name == "b_x4.png"
    (outputs / "c.png").rename(outputs / "d.png")
    with pytest.raises(
        ImageError, match=r"m: lacks the outputs of 1 of the 3 .* first is c; it has.*d\.png"
    ):
        match_outputs(find_set(pictures), outputs)


def test_the_digest_is_of_pixels_and_not_of_the_file(tmp_path):
    picture = Image.new("RGB", (4, 6), (1, 2, 3))
    picture.save(tmp_path / "a.bmp")
    with Image.open(tmp_path / "a.bmp") as other:
        assert pixel_digest(other.convert("RGB")) == pixel_digest(picture)
    assert pixel_digest(Image.new("RGB", (6, 4), (1, 2, 3))) != pixel_digest(picture)


def test_captions_are_read_in_the_authors_form_and_ours(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text(
        '{"image_path": "/far/away/01.png", "long_caption": "horses"}\n'
        '{"key": "02", "caption": "a fly"}\n'
    )
    assert read_captions(path) == {"01": "horses", "02": "a fly"}
    path.write_text('{"key": "02"}')
    with pytest.raises(ConfigError, match="line 1 has no caption"):
        read_captions(path)

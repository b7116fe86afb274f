"""Pictures come from folders, files, lists and shards, with what is said about them."""

import io
import json
import logging
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.training.config import TokenizerConfig
from nsarm_cli.training.feed import training_batches
from nsarm_cli.training.listing import list_pictures
from nsarm_cli.training.photos import PhotoStore, decode, ratio_of
from nsarm_cli.training.records import Captions


def write_list(path, *entries, end="\n"):
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def named(listing):
    return [record.name for record in listing.records]


def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def test_a_list_gives_pictures_captions_and_ratios(photos, tmp_path):
    entries = (
        {"image_path": str(photos / "1.png"), "h_div_w": 0.857, "long_caption": "a wave",
         "text": "wave", "long_caption_type": "llava"},
        {"image_path": "photos/0.png", "long_caption": " étoile\n"},
        {"image_path": "photos/2.png"},
    )  # fmt: skip
    path = write_list(tmp_path / "list.jsonl", *entries)
    listing = list_pictures([path])
    assert named(listing) == ["1.png", "0.png", "2.png"]
    assert [record.captions() for record in listing.records] == [
        Captions("a wave", "wave"),
        Captions("étoile"),
        Captions(),
    ]
    assert [record.ratio for record in listing.records] == [0.857, None, None]
    assert decode(listing.records[1]).shape == (96, 112, 3)
    assert listing.faults == listing.claims == []


def test_a_folder_with_lists_is_what_they_name(photos, caplog):
    write_list(photos / "a.jsonl", {"image_path": "3.png"})
    write_list(photos / "b.jsonl", {"image_path": "1.png"})
    assert named(list_pictures([photos])) == ["3.png", "1.png"]
    assert "do not name 2 of its pictures, such as 0.png; these are left out" in caplog.text


def test_a_folder_is_searched_once_however_many_links_lead_there(photos, tmp_path):
    (photos / "sub").mkdir()
    (photos / "sub" / "up").symlink_to("..")
    (photos / "again").symlink_to("sub")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (8, 8)).save(elsewhere / "4.png")
    (photos / "sub" / "far").symlink_to(elsewhere)
    assert named(list_pictures([photos])) == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert len(list_pictures([photos / "sub"]).records) == 5


@pytest.mark.parametrize(("claimed", "told"), [(3, True), (2, False)])
def test_the_count_in_a_name_is_checked_and_all_lines_are_used(photos, tmp_path, claimed, told):
    entries = [{"image_path": f"photos/{i}.png"} for i in range(2)]
    path = write_list(tmp_path / f"1.000_{claimed:09d}.jsonl", *entries, end="\n\n")
    listing = list_pictures([path])
    assert len(listing.records) == 2
    assert [claim.split(": ")[1] for claim in listing.claims] == (
        ["has 2 lines, not 3 as its name says; all are used"] if told else []
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting"),
        ("[1]", "not a JSON object"),
        ('{"h_div_w": 1}', 'no text "image_path"'),
        ('{"image_path": "x.png", "h_div_w": "wide"}', '"h_div_w" is not a number above 0'),
        ('{"image_path": "x.png", "h_div_w": NaN}', '"h_div_w" is not a number above 0'),
        ('{"image_path": "x.png", "long_caption": 3}', "a caption is not a text"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_the_others_count(photos, tmp_path, line, reason):
    path = write_list(tmp_path / "list.jsonl", {"image_path": "photos/0.png"}, line)
    listing = list_pictures([path])
    assert len(listing.records) == 1
    assert len(listing.faults) == 1
    assert listing.faults[0].startswith(f"{path}: line 2 cannot be used (")
    assert reason in listing.faults[0]


def test_a_list_of_nothing_usable_is_named_with_its_first_fault(tmp_path):
    path = write_list(tmp_path / "list.jsonl", "no json")
    with pytest.raises(ConfigError, match=r"list\.jsonl: no pictures found \(.*line 1 cannot be"):
        list_pictures([path])


def test_a_picture_that_a_list_names_in_vain_is_named_when_it_is_read(tmp_path):
    listing = list_pictures([write_list(tmp_path / "l.jsonl", {"image_path": "absent.png"})])
    with pytest.raises(ImageError, match=r"absent\.png cannot be decoded .*No such file"):
        decode(listing.records[0])


def test_a_text_beside_a_picture_is_its_caption(photos):
    (photos / "1.txt").write_text("\ufeffa wave\n", encoding="utf-8")
    captions = {record.name: record.captions().long for record in list_pictures([photos]).records}
    assert captions == {"0.png": "", "1.png": "a wave", "2.png": "", "3.png": ""}
    assert list_pictures([photos / "1.png"]).records[0].captions().long == "a wave"


def test_members_of_one_key_in_a_shard_are_picture_and_caption(photos, tmp_path):
    picture = (photos / "0.png").read_bytes()
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        add(archive, "a/0.json", json.dumps({"text": "short", "long_caption": "long"}).encode())
        add(archive, "a/0.png", picture)
        add(archive, "b/0.png", picture)
        add(archive, "b/0.txt", b"plain")
        add(archive, "b/1.high.png", picture)
        add(archive, "b/._1.png", b"what another system leaves")
    records = list_pictures([tmp_path / "s.tar"]).records
    assert [record.name for record in records] == ["a/0.png", "b/0.png", "b/1.high.png"]
    assert [record.captions() for record in records] == [
        Captions("long", "short"),
        Captions("plain"),
        Captions(),
    ]
    assert decode(records[1]).shape == (96, 112, 3)


def test_captions_that_cannot_be_read_are_named(photos):
    (photos / "1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImageError, match=r"1\.txt: the captions of 1\.png cannot be read"):
        list_pictures([photos / "1.png"]).records[0].captions()


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_the_ratio_of_a_picture_is_read_from_its_header(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"x.{ending}")
    record = list_pictures([tmp_path]).records[0]
    assert ratio_of(record) == pytest.approx(0.75)


def test_a_turned_photograph_is_as_a_viewer_shows_it(tmp_path):
    image = Image.new("RGB", (40, 30))
    image.paste((255, 255, 255), (0, 0, 40, 5))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.png", exif=exif)
    record = list_pictures([tmp_path]).records[0]
    assert decode(record).shape == (40, 30, 3)
    assert decode(record)[:, -5:].min() == 255
    assert ratio_of(record) == pytest.approx(4 / 3)


def test_lines_left_out_are_counted_and_too_many_are_refused(
    photos, tmp_path, micro_config, caplog
):
    path = write_list(tmp_path / "list.jsonl", "{", {"image_path": "photos/0.png"}, "none")

    def start(corrupt):
        config = TokenizerConfig(batch=2, crop=32, workers=0, corrupt=corrupt)
        training_batches(config, micro_config, [str(path)], torch.device("cpu"))

    with caplog.at_level(logging.WARNING):
        start(corrupt=2)
    (told,) = caplog.messages
    assert told.startswith(f"2 lines of lists are left out; the first is {path}: line 1 cannot be")
    with pytest.raises(
        ConfigError, match=r"^2 lines of lists .* the 1 that corrupt .*line 1 .*set"
    ):
        start(corrupt=1)


def test_the_claims_of_lists_are_told(photos, tmp_path, caplog):
    path = write_list(tmp_path / "x_000000007.jsonl", {"image_path": "photos/0.png"})
    with caplog.at_level(logging.WARNING):
        PhotoStore([path])
    assert "has 1 lines, not 7 as its name says" in caplog.text

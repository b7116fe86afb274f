"""Pictures come alike from folders, files and tar shards; bad ones are named."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.training.photos import PhotoStore


def pack(folder, path, names=None):
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, names[file.name] if names else file.name)
    return path


def contents(store):
    return [store[i] for i in range(len(store))]


def assert_same(one, two):
    assert len(one) == len(two)
    for first, second in zip(contents(one), contents(two), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_folder_and_a_shard_of_it_hold_the_same(photos, tmp_path):
    shard = PhotoStore([pack(photos, tmp_path / "photos.tar")])
    folder = PhotoStore([photos])

    assert_same(folder, shard)
    assert [folder.name(i) for i in range(4)] == [shard.name(i) for i in range(4)]
    assert [folder.name(i) for i in range(4)] == ["0.png", "1.png", "2.png", "3.png"]


def test_a_picture_is_what_its_file_holds(photos):
    with Image.open(photos / "2.png") as image:
        np.testing.assert_array_equal(PhotoStore([photos])[2], np.asarray(image))


def test_folders_are_searched_to_the_bottom_and_shards_in_them_are_opened(photos, tmp_path):
    deep = tmp_path / "root" / "a" / "b"
    deep.mkdir(parents=True)
    pack(photos, deep / "shard.tar")
    (photos / "0.png").rename(tmp_path / "root" / "single.png")
    assert len(PhotoStore([tmp_path / "root"])) == 5


def test_several_paths_are_one_store(photos):
    assert len(PhotoStore([photos / "1.png", photos, photos / "1.png"])) == 6


def test_other_files_and_hidden_ones_are_left_out(photos, tmp_path):
    (photos / "notes.txt").write_text("none")
    (photos / "._0.png").write_bytes(b"what another system leaves")
    assert len(PhotoStore([photos])) == 4
    assert len(PhotoStore([pack(photos, tmp_path / "photos.tar")])) == 4


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    Image.new(mode, (5, 3)).save(tmp_path / "x.tif")
    assert PhotoStore([tmp_path])[0].shape == (3, 5, 3)


def test_pictures_stay_in_memory_up_to_the_limit(photos):
    one_picture = 96 * 112 * 3
    store = PhotoStore([photos], cache_bytes=one_picture)
    first = store[0]
    contents(store)
    for file in photos.iterdir():
        file.unlink()

    np.testing.assert_array_equal(store[0], first)
    with pytest.raises(ImageError):
        store[1]


def test_a_picture_cut_short_is_named_and_the_others_are_read(photos, tmp_path):
    good = (photos / "1.png").read_bytes()
    (photos / "1.png").write_bytes(good[: len(good) // 2])
    for store in (PhotoStore([photos]), PhotoStore([pack(photos, tmp_path / "photos.tar")])):
        with pytest.raises(ImageError, match=r"1\.png cannot be decoded .*; remove or replace it"):
            store[1]
        assert store[2].shape == (96, 112, 3)


def test_the_error_of_a_shard_names_shard_and_picture(photos, tmp_path):
    (photos / "1.png").write_bytes(b"no picture")
    names = {f"{i}.png": f"deep/{i}.png" for i in range(4)}
    store = PhotoStore([pack(photos, tmp_path / "photos.tar", names)])
    with pytest.raises(ImageError, match=r"photos\.tar: deep/1\.png cannot be decoded"):
        store[1]


def test_a_bomb_is_an_error(photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"0\.png cannot be decoded"):
        PhotoStore([photos])[0]


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ConfigError, match="absent: no such file or folder"):
        PhotoStore([tmp_path / "absent"])


def test_a_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(ConfigError, match=rf"{tmp_path.name}: no pictures found; give a folder"):
        PhotoStore([tmp_path])


@pytest.mark.parametrize("content", [b"", b"this is no tar file" * 100])
def test_a_broken_shard_is_named(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.tar: not a readable tar shard"):
        PhotoStore([tmp_path])

"""Files that a user has fetched are grouped into checkpoints."""

import json

import pytest

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.originals import find_originals


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def names(source):
    return [path.name for path in source.files]


def test_parts_are_joined_in_the_order_of_their_names_and_files_stand_alone(tmp_path):
    paths = touch(tmp_path, "N_part_10", "vae.pth", "N_part_9", "b.safetensors", "M_part_ab")
    paths += touch(tmp_path / "other", "N_part_8")
    found = {tuple(names(source)): source.pickled for source in find_originals(paths)}
    assert found == {
        ("vae.pth",): True,
        ("b.safetensors",): False,
        ("N_part_9", "N_part_10"): True,
        ("M_part_ab",): True,
        ("N_part_8",): True,  # of another folder, so of another file
    }


def test_a_folder_is_its_shards_or_the_checkpoints_in_it(tmp_path):
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    touch(tmp_path / "t5", *shards, "config.json", "flax.msgpack", "pytorch_model.bin")
    touch(tmp_path / "nsarm", "N_part_aa", "N_part_ab", "readme.txt")
    t5, nsarm = find_originals([tmp_path / "t5", tmp_path / "nsarm"])
    assert (names(t5), t5.pickled, t5.folder) == (shards, False, tmp_path / "t5")
    assert (names(nsarm), nsarm.pickled) == (["N_part_aa", "N_part_ab"], True)


def test_an_index_says_which_shards_belong_to_the_folder(tmp_path):
    touch(tmp_path, "a.safetensors", "b.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "b.safetensors"}}))
    assert names(find_originals([tmp_path])[0]) == ["b.safetensors"]
    index.write_text(json.dumps({"weight_map": {"x": "c.safetensors"}}))
    with pytest.raises(WeightsError, match=r"c\.safetensors: is missing, though"):
        find_originals([tmp_path])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../b.safetensors"}}',
    ],
)
def test_a_damaged_index_is_named(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match=r"index\.json: is not an index of weights"):
        find_originals([tmp_path])


def test_what_is_no_checkpoint_is_named(tmp_path):
    (photo,) = touch(tmp_path / "pictures", "photo.jpg")
    for path, fault in (
        (photo, "is no checkpoint by its name"),
        (photo.parent, "holds no .safetensors, no .pth"),
        (tmp_path / "absent.pth", "does not exist"),
    ):
        with pytest.raises(WeightsError, match=fault):
            find_originals([path])

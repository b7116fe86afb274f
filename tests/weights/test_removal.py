"""Only what the store made is deleted."""

import hashlib
import json
from pathlib import Path, PurePosixPath

import pytest
from tests.silent import Silent

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights import removal
from nsarm_cli.weights.catalog import find_model
from nsarm_cli.weights.entries import FileEntry, FolderSource, ModelEntry
from nsarm_cli.weights.importing import import_files
from nsarm_cli.weights.intake import opened
from nsarm_cli.weights.store import Store

DATA = b"autoencoder"


@pytest.fixture
def model(tmp_path):
    source = (FolderSource(tmp_path, "a.pth"),)
    digest = hashlib.sha256(DATA).hexdigest()
    path = PurePosixPath("vae/a.pth")
    return ModelEntry("large", "nsarm", (FileEntry("vae", path, source, sha256=digest),))


@pytest.fixture
def store(tmp_path, model):
    (tmp_path / "a.pth").write_bytes(DATA)
    store = Store(tmp_path / "home")
    import_files(store, model, [tmp_path / "a.pth"], Silent())
    return store


def test_everything_that_was_made_goes_and_the_users_file_stays(store, model, tmp_path):
    folder = store.downloads("large")
    (folder / "vae/a.pth.partial").write_bytes(b"1")
    (folder / "vae/a.pth.rejected").write_bytes(b"22")
    planned = removal.plan(store, model, converted=True)
    assert planned.size == len(DATA) + 3
    removal.remove(store, model, planned)
    assert not folder.exists()
    assert (tmp_path / "a.pth").read_bytes() == DATA


def test_a_file_of_somebody_else_stays(store, model):
    notes = store.downloads("large") / "vae" / "notes.txt"
    notes.write_text("mine")
    planned = removal.plan(store, model, converted=True)
    assert planned.foreign == (notes,)
    removal.remove(store, model, planned)
    assert notes.read_text() == "mine"


def test_the_originals_may_go_alone(store, model):
    converted = store.converted("large")
    converted.mkdir(parents=True)
    (converted / "config.json").write_text("{}")
    removal.remove(store, model, removal.plan(store, model, converted=False))
    assert store.runnable(model) == converted
    planned = removal.plan(store, model, converted=True)
    assert planned.files == (converted / "config.json",)
    removal.remove(store, model, planned)
    assert not converted.exists()


def test_nothing_goes_while_another_process_works_on_it(store, model):
    planned = removal.plan(store, model, converted=True)
    with opened(store, model), pytest.raises(WeightsError, match="another nsarm is working"):
        removal.remove(store, model, planned)
    assert planned.files[0].exists()


def test_a_shipped_model_is_not_removed(store):
    with pytest.raises(WeightsError, match="comes with nsarm"):
        removal.plan(store, find_model("nsarm-nano"), converted=True)


def convert_like(folder):
    """What a conversion leaves, and what a user has put beside it."""
    (folder / "text_encoder").mkdir(parents=True)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    record = {"files": {shards[0]: 1, shards[1]: 1, "text_encoder/model.safetensors": 1}}
    texts = {
        "config.json": "{}",
        "model.safetensors.index.json": json.dumps(index),
        "conversion.json": json.dumps(record),
    }
    ours = [*texts, *shards, "prompt.safetensors", "text_encoder/model.safetensors"]
    ours += ["text_encoder/config.json", "text_encoder/tokenizer.json"]
    users = ["my-notes.json", "lora.safetensors", "text_encoder/spiece.model"]
    for name in [*ours, *users]:
        (folder / name).write_text(texts.get(name, "x"))
    return {folder / name for name in ours}, {folder / name for name in users}


def test_of_a_converted_model_goes_what_the_conversion_wrote(store, model):
    """Endings do not tell: a user's own tables and adapters have the same."""
    ours, users = convert_like(store.converted("large"))
    planned = removal.plan(store, model, converted=True)
    assert set(planned.files) == {store.downloads("large") / "vae/a.pth", *ours}
    assert set(planned.foreign) == users
    removal.remove(store, model, planned)
    left = {path for path in store.converted("large").rglob("*") if path.is_file()}
    assert left == users
    assert not store.downloads("large").exists()


def test_a_converted_model_alone_leaves_no_folder(store, model):
    _, users = convert_like(store.converted("large"))
    for path in users:
        path.unlink()
    removal.remove(store, model, removal.plan(store, model, converted=True))
    assert not store.converted("large").exists()


@pytest.mark.parametrize("names", ['{"../../keep.txt": 1}', '["a"]', "{", "3"])
def test_a_damaged_record_names_nothing_outside(store, model, names):
    folder = store.converted("large")
    folder.mkdir(parents=True)
    keep = folder.parent.parent / "keep.txt"
    keep.write_text("mine")
    (folder / "conversion.json").write_text(f'{{"files": {names}}}')
    removal.remove(store, model, removal.plan(store, model, converted=True))
    assert keep.read_text() == "mine"


@pytest.mark.parametrize("which", ["downloads", "converted"])
def test_of_a_folder_that_is_a_link_the_link_goes_and_the_disk_behind_it_stays(
    store, model, tmp_path, which
):
    convert_like(store.converted("large"))
    link = getattr(store, which)("large")
    disk = tmp_path / "disk"
    link.rename(disk)
    link.symlink_to(disk, target_is_directory=True)
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    planned = removal.plan(store, model, converted=True)
    assert link in planned.files
    assert planned.linked == (disk,)
    removal.remove(store, model, planned)
    assert not link.is_symlink()
    kept = {path for path in before if not path.name.startswith(".nsarm-")}
    assert kept
    assert all(path.read_bytes() == before[path] for path in kept)


def test_a_folder_of_the_model_that_is_a_link_stays(store, model, tmp_path):
    folder, disk = store.converted("large"), tmp_path / "disk"
    convert_like(folder)
    (folder / "text_encoder").rename(disk)
    (folder / "text_encoder").symlink_to(disk, target_is_directory=True)
    planned = removal.plan(store, model, converted=True)
    assert folder / "text_encoder" in planned.foreign
    removal.remove(store, model, planned)
    assert (folder / "text_encoder" / "tokenizer.json").exists()


def test_a_folder_that_cannot_be_deleted_is_told(store, model, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rmdir", refuse)
    with pytest.raises(WeightsError, match="cannot be deleted: Permission denied"):
        removal.remove(store, model, removal.plan(store, model, converted=True))

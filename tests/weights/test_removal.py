"""Only what the store made is deleted."""

import hashlib
from pathlib import PurePosixPath

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

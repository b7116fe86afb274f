"""`weights.toml` is found, is right about the shipped files, and is checked strictly."""

import hashlib
import json
from pathlib import Path

import pytest

from nsarm_cli.errors import ConfigError, WeightsError
from nsarm_cli.weights import catalog

ROOT = Path(__file__).parents[2]
GOOD = """
[models.small]
family = "nsarm"

[[models.small.files]]
role = "model"
path = "assets/small.safetensors"
size = 12
sha256 = "{digest}"
licence = "Apache-2.0"
""".format(digest="0" * 64)


def load(tmp_path, text):
    path = tmp_path / "weights.toml"
    path.write_text(text)
    return catalog.load_catalog(path)


def test_the_catalogue_of_the_checkout_is_found():
    assert catalog.catalog_path().read_text() == (ROOT / "weights.toml").read_text()


def test_a_copy_beside_the_package_goes_before_the_checkout(monkeypatch, tmp_path):
    package = tmp_path / "src" / "nsarm_cli"
    package.mkdir(parents=True)
    monkeypatch.setattr(catalog, "_PACKAGE", package)
    with pytest.raises(ConfigError, match=r"weights\.toml is missing"):
        catalog.catalog_path()
    (tmp_path / "weights.toml").touch()
    assert catalog.catalog_path() == tmp_path / "weights.toml"
    (package / "weights.toml").touch()
    assert catalog.catalog_path() == package / "weights.toml"


def test_the_shipped_files_are_those_that_the_catalogue_names():
    for file in catalog.find_model("nsarm-nano").files:
        data = file.location.read_bytes()
        assert len(data) == file.size, file.path
        assert hashlib.sha256(data).hexdigest() == file.sha256, file.path


def test_the_shipped_model_is_one_configuration_and_one_weights_file_of_at_most_40_mb():
    files = {file.role: file for file in catalog.find_model("nsarm-nano").files}
    assert set(files) == {"config", "model"}
    assert files["config"].location.parent == files["model"].location.parent
    json.loads(files["config"].location.read_text())
    assert files["model"].size <= 40_000_000


def test_an_unknown_model_is_an_error_that_lists_the_known():
    with pytest.raises(WeightsError, match=r"'nsarm-giga' is unknown: .* nsarm-nano"):
        catalog.find_model("nsarm-giga")


def test_a_good_catalogue_is_read_whole(tmp_path):
    entry = load(tmp_path, GOOD)["small"]
    assert (entry.name, entry.family, len(entry.files)) == ("small", "nsarm", 1)
    file = entry.files[0]
    assert (file.role, file.size, file.licence) == ("model", 12, "Apache-2.0")
    assert file.location.parts[-3:] == ("nsarm_cli", "assets", "small.safetensors")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[models.small]", "[models.small", "not valid TOML"),
        ("[models.small]", "[model.small]", "model is unknown"),
        ('family = "nsarm"', "family = 3", "models.small.family is 3: it must be of type str"),
        ('family = "nsarm"', "", "models.small.family is missing"),
        ('family = "nsarm"', 'family = "nsarm"\ncolour = 1', "models.small.colour is unknown"),
        ("size = 12", 'size = "12"', r"models.small.files\[0\].size is '12'"),
        ("size = 12", "size = true", r"files\[0\].size is True"),
        ("size = 12", "size = 12\nmd5 = 1", r"files\[0\].md5 is unknown"),
        ("0" * 64, "0" * 63, "must be 64 hexadecimal digits"),
        ("assets/", "../", "must stay in the package"),
        ("assets/", "/", "must stay in the package"),
        ("[[models.small.files]]", "[models.small.files]", "files is .*must be of type list"),
    ],
)
def test_a_slip_is_an_error_that_names_the_place(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "models is missing"),
        ("[models]\nsmall = 3", "models.small must be a table"),
        ('[models.small]\nfamily = "x"\nfiles = []', "files is empty"),
        ('[models.small]\nfamily = "x"\nfiles = [3]', r"files\[0\] must be a table"),
        (GOOD + "\n[other]\n", "other is unknown"),
    ],
)
def test_a_wrong_shape_is_an_error_that_names_the_place(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_an_unreadable_catalogue_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        catalog.load_catalog(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        catalog.load_catalog(tmp_path / "binary.toml")

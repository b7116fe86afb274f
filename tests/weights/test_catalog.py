"""`weights.toml` is found, is right about the shipped files, and is checked strictly."""

import hashlib
import json
from pathlib import Path

import pytest

from nsarm_cli.errors import ConfigError, WeightsError
from nsarm_cli.weights import catalog
from nsarm_cli.weights.entries import DriveSource, FolderSource, HubSource, UrlSource

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
PUBLISHED = """
[models.large]
family = "nsarm"

[[models.large.files]]
role = "vae"
path = "vae/autoencoder.pth"
md5 = "{md5}"
sources = [
  {{ hub = "someone/large", revision = "{commit}", path = "pretrained/autoencoder.pth" }},
  {{ url = "https://mirror.example/autoencoder.pth" }},
  {{ folder = "/mnt/weights" }},
]

[[models.large.files]]
role = "transformer"
path = "transformer/large.pth"
parts = "large_part_*"
sha256 = "{digest}"
sources = [{{ drive = "1Abc-_9" }}, {{ hub = "someone/large" }}]
""".format(md5="1" * 32, digest="2" * 64, commit="3" * 40)


def load(tmp_path, text):
    path = tmp_path / "weights.toml"
    path.write_text(text)
    return catalog.load_catalog(path)


def test_the_catalogue_of_the_checkout_is_found():
    assert catalog.catalog_path().read_text() == (ROOT / "weights.toml").read_text()


def test_a_copy_beside_the_package_goes_before_the_checkout(monkeypatch, tmp_path):
    package = tmp_path / "src" / "nsarm_cli"
    package.mkdir(parents=True)
    monkeypatch.setattr(catalog, "PACKAGE", package)
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
        ("size = 12", "size = 0", r"files\[0\].size is 0: it must be above 0"),
        ("size = 12", "", r"files\[0\]: a file that ships .* needs size and sha256"),
        ("size = 12", "size = 12\nmd5 = 1", r"files\[0\].md5 is 1: it must be of type str"),
        ("size = 12", "size = 12\nmd6 = 1", r"files\[0\].md6 is unknown"),
        ('role = "model"', 'role = "weights"', "role is 'weights': it must be one of config"),
        ("[models.small]", '[models."../x"]', "a model's name is lower-case letters"),
        ("assets/", ".assets/", "must stay in the package"),
        ("small.safetensors", "small.partial", "names in .partial are kept for downloads"),
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


def test_sources_are_read_in_order_with_the_file_name_as_their_default(tmp_path):
    vae, transformer = load(tmp_path, PUBLISHED)["large"].files
    assert vae.sources == (
        HubSource("someone/large", "3" * 40, "pretrained/autoencoder.pth"),
        UrlSource("https://mirror.example/autoencoder.pth"),
        FolderSource(Path("/mnt/weights"), "autoencoder.pth"),
    )
    assert (vae.size, vae.sha256, vae.licence) == (None, None, None)
    assert vae.digests == {"md5": "1" * 32}
    assert transformer.sources == (
        DriveSource("1Abc-_9", "large_part_*"),
        HubSource("someone/large", None, ""),
    )
    assert transformer.is_part("large_part_aa")
    assert not transformer.is_part("large.pth")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('parts = "large_part_*"', 'parts = "*_part_*"', "parts is .* ends in one"),
        ('parts = "large_part_*"', 'parts = "a/b_*"', "parts is .* ends in one"),
        ('sha256 = "' + "2" * 64 + '"', "", r"files\[1\]: parts need sha256 or md5"),
        ("1Abc-_9", "1Abc/9", r"files\[1\].sources\[0\].drive is .* the id of a folder"),
        ("someone/large", "someone", r"sources\[0\].hub is 'someone'"),
        ("3" * 40, "3" * 7, r"sources\[0\].revision is .* 40 digits"),
        ("https://mirror", "ftp://mirror", r"sources\[1\].url is 'ftp://.* http address"),
        ('folder = "/mnt', 'disk = "/mnt', r"sources\[2\] must name one of hub"),
        ('folder = "/mnt', 'url = "http://x/y", folder = "/mnt', "must name one of .* has 2"),
        ("https://mirror", "http://mirror", None),
        ('{ drive = "1Abc-_9" }', "3", r"sources\[0\] must be a table"),
        ('{ drive = "1Abc-_9" }', '{ url = "https://x/y" }', "parts cannot be listed at a url"),
        ("transformer/large.pth", "vae/autoencoder.pth", "'vae/autoencoder.pth' twice"),
    ],
)
def test_a_slip_in_a_source_is_an_error_that_names_the_place(tmp_path, old, new, message):
    assert old in PUBLISHED
    text = PUBLISHED.replace(old, new)
    if message is None:
        load(tmp_path, text)  # plain http is fine where a digest says what must come
        text, message = text.replace(f'md5 = "{"1" * 32}"', ""), "is not https, so sha256 or md5"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_model_is_not_half_shipped(tmp_path):
    mixed = PUBLISHED + GOOD.split("\n\n", 1)[1].replace("models.small", "models.large")
    with pytest.raises(ConfigError, match="all one or all the other"):
        load(tmp_path, mixed)


def test_the_catalogue_holds_what_the_authors_publish():
    files = {str(file.path): file for file in catalog.find_model("nsarm-8b").files}
    transformer = files["transformer/NSARM.pth"]
    assert transformer.parts == "NSARM_part_*"
    assert transformer.md5 == "16905db52d64fd44c365b6a963a6598d"
    assert transformer.size is None
    vae = files["vae/infinity_vae_d56_f8_14_patchify.pth"]
    assert vae.sha256.startswith("c4c69535")
    for name, transformer in (("varsr", "VARSR.pth"), ("varsr-c2i", "VARSR_C2I.pth")):
        files = catalog.find_model(name).files
        assert [file.path.name for file in files] == [transformer, "VQVAE.pth"]


def test_another_catalogue_can_be_named_by_the_environment(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(PUBLISHED)
    monkeypatch.setenv("NSARM_CATALOG", str(tmp_path / "mine.toml"))
    assert list(catalog.load_catalog()) == ["large"]
    monkeypatch.setenv("NSARM_CATALOG", str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read.*NSARM_CATALOG"):
        catalog.load_catalog()


def test_deep_nesting_is_an_error_and_no_crash(tmp_path):
    with pytest.raises(ConfigError, match=r"weights\.toml: "):
        load(tmp_path, "a = " + "[" * 100_000)


def test_an_unreadable_catalogue_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        catalog.load_catalog(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        catalog.load_catalog(tmp_path / "binary.toml")

"""`nsarm weights list` and `path`."""

import json

import pytest

import nsarm_cli.weights.entries


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    path = tmp_path / "home"
    monkeypatch.setenv("NSARM_HOME", str(path))
    return path


def test_the_list_shows_every_model_with_its_state_and_files(run_cli, home):
    done = run_cli("weights", "list")
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert ["nsarm-nano", "ready", "to", "run", "verified", "14.9", "MB"] in lines
    assert ["nsarm-8b", "not", "ready", "to", "run", "missing", "0", "bytes"] in lines
    assert "transformer/NSARM.pth" in done.out
    assert str(home) in done.err
    assert not home.exists()


def test_the_list_as_json_is_one_document_with_all_that_is_known(run_cli, home):
    document = json.loads(run_cli("weights", "list", "--json").out)
    assert document["home"] == str(home)
    models = {model["name"]: model for model in document["models"]}
    assert models["nsarm-nano"]["state"] == "verified"
    assert models["nsarm-8b"]["runnable"] is None
    transformer = models["nsarm-8b"]["files"][0]
    assert transformer["md5"] == "16905db52d64fd44c365b6a963a6598d"
    assert transformer["size"] is None
    assert transformer["on_disk"] == []


def test_path_prints_the_folder_of_all_weights_or_of_a_model(run_cli, home):
    assert run_cli("weights", "path").out == f"{home}\n"
    package = nsarm_cli.weights.entries.PACKAGE
    assert run_cli("weights", "path", "nsarm-nano").out == f"{package}/assets/nsarm-nano\n"


def test_path_of_a_model_that_is_not_here_says_how_to_get_it(run_cli):
    done = run_cli("weights", "path", "nsarm-8b")
    assert done.code == 4
    assert done.out == ""
    assert "nsarm weights download nsarm-8b" in done.err


def test_path_tells_published_files_from_converted_ones(run_cli, home):
    published = home / "downloads" / "nsarm-8b" / "vae"
    published.mkdir(parents=True)
    (published / "infinity_vae_d56_f8_14_patchify.pth").write_bytes(b"x")
    done = run_cli("weights", "path", "nsarm-8b")
    assert done.out == f"{published.parent}\n"
    assert "is not converted yet" in done.err
    converted = home / "models" / "nsarm-8b"
    converted.mkdir(parents=True)
    (converted / "config.json").write_text("{}")
    assert run_cli("weights", "path", "nsarm-8b").out == f"{converted}\n"
    assert run_cli("weights", "path", "nsarm-8b", "--originals").out == f"{published.parent}\n"


def test_an_unknown_model_is_an_error_that_lists_the_known(run_cli):
    done = run_cli("weights", "path", "nsarm-giga")
    assert done.code == 4
    assert "nsarm-nano" in done.err

"""`nsarm weights convert`, from published files to a picture, through the real entry."""

import hashlib
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.published import MICRO_8B, make_model, publish, save_parts, transformer_tensors

from nsarm_cli.cli.main import main
from nsarm_cli.models.nsarm.config import PRESETS
from nsarm_cli.models.nsarm.resolver import NsarmTextResolver
from nsarm_cli.pipeline import Upscaler

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def published(model, text_encoder_folder, tmp_path):
    return publish(model, text_encoder_folder, tmp_path / "files")


@pytest.fixture
def nsarm(monkeypatch, capsys, tmp_path):
    """Run `nsarm ARGUMENTS...` with a store of its own, in which the scaled model has a name."""
    monkeypatch.setitem(PRESETS, MICRO_8B.name, MICRO_8B)
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def digest(*paths, algorithm="sha256"):
    joined = b"".join(path.read_bytes() for path in paths)
    return hashlib.new(algorithm, joined, usedforsecurity=False).hexdigest()


def test_from_published_files_to_a_picture(nsarm, published, model, tmp_path, photo):
    """The transformer comes in parts, nested; its digest is an md5 of the join, as published."""
    transformer, vae, t5 = published
    torch.save({"trainer": {"gpt_fsdp": transformer_tensors(model)}}, transformer)
    parts = save_parts(transformer, 3)
    code, out, err = nsarm(
        "weights", "convert", "micro-8b", *parts[::-1], vae, t5, "-o", tmp_path / "model",
        "--precision", "fp32", "--md5", digest(*parts, algorithm="md5"), "--sha256", digest(vae),
    )  # fmt: skip
    assert (code, out) == (0, f"{tmp_path / 'model'}\n"), err
    assert "converted to fp32" in err
    code, out, err = nsarm(
        "upscale", photo, "-o", tmp_path / "large.png", "--model", tmp_path / "model",
        "--precision", "fp32", "--seed", "5",
    )  # fmt: skip
    assert code == 0, err
    made = np.array(Image.open(tmp_path / "large.png"))
    features = load_file(tmp_path / "model" / "prompt.safetensors")["features"]
    upscaler = Upscaler(NsarmTextResolver(model, features), CPU)
    wanted = np.array(upscaler.upscale(Image.open(photo), seed=5))
    assert made.shape == wanted.shape
    # The loaded decoder runs leanly, so a value may be rounded to the next level.
    assert np.abs(made.astype(int) - wanted.astype(int)).max() <= 1
    assert made.std() > 1  # not a comparison of empty pictures


def test_by_default_the_folder_is_where_the_model_is_looked_for(nsarm, published, tmp_path):
    code, out, err = nsarm("weights", "convert", "micro-8b", *published, "--unverified")
    assert (code, out) == (0, f"{tmp_path / 'home' / 'models' / 'micro-8b'}\n"), err


def test_a_pickle_without_a_digest_is_refused_with_the_remedy(nsarm, published, tmp_path):
    code, out, err = nsarm("weights", "convert", "micro-8b", *published)
    assert (code, out) == (4, "")
    assert "NSARM.pth: is a pickle whose digest is not known" in err
    assert "--unverified" in err
    assert not (tmp_path / "home" / "models").exists()


def test_a_wrong_digest_is_refused_even_if_unverified_is_accepted(nsarm, published):
    code, _, err = nsarm(
        "weights", "convert", "micro-8b", *published, "--sha256", "0" * 64, "--unverified"
    )
    assert code == 4
    assert f"none of the files has the sha256 {'0' * 64}" in err
    code, _, err = nsarm("weights", "convert", "micro-8b", *published, "--sha256", "0" * 64)
    assert code == 4
    assert f"NSARM.pth: its sha256 is {digest(published[0])}, which nobody states" in err
    code, _, err = nsarm("weights", "convert", "micro-8b", *published, "--md5", "12")
    assert code == 2
    assert "'12' is not a md5" in err


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_code_in_it_ends_in_a_sentence(nsarm, published, tmp_path):
    mark = tmp_path / "mark"
    torch.save({"word_embed.weight": Malicious(mark)}, published[0])
    code, _, err = nsarm(
        "weights", "convert", "micro-8b", *published,
        "--sha256", digest(published[0]), "--sha256", digest(published[1]),
    )  # fmt: skip
    assert code == 4
    assert "could run code when opened" in err
    assert "Traceback" not in err
    assert not mark.exists()


def test_what_is_missing_is_said(nsarm, published):
    code, _, err = nsarm("weights", "convert", "micro-8b")
    assert code == 4
    assert "get them with nsarm weights download micro-8b" in err
    code, _, err = nsarm("weights", "convert", "tiny-8b", *published)
    assert code == 4
    assert "model 'tiny-8b' cannot be converted" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(nsarm, published, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = nsarm(
        "weights", "convert", "micro-8b", *published, "--unverified",
        "-o", tmp_path / "locked" / "model",
    )  # fmt: skip
    assert code == 4
    assert "cannot be written (Permission denied)" in err


def test_a_place_that_is_no_folder_is_named(nsarm, published, photo):
    code, _, err = nsarm(
        "weights", "convert", "micro-8b", *published, "--unverified", "-o", photo / "model"
    )
    assert code == 4
    assert "cannot be written (" in err

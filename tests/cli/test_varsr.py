"""VARSR from its published files to enlarged pictures, through the real entry."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.published_varsr import MICRO_VARSR, make_varsr, publish_varsr, varsr_tensors

from nsarm_cli.cli.main import main
from nsarm_cli.models.varsr.config import PRESETS


@pytest.fixture(scope="module")
def model():
    return make_varsr()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The model as `nsarm weights convert` leaves it."""
    files = publish_varsr(model, tmp_path_factory.mktemp("varsr") / "files")
    target = files[0].parent.parent / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, MICRO_VARSR.name, MICRO_VARSR)
        patch.setenv("NSARM_HOME", str(target.parent / "home"))
        names = [str(file) for file in files]
        code = main(
            [
                "weights",
                "convert",
                MICRO_VARSR.name,
                *names,
                "-o",
                str(target),
                "--precision",
                "fp32",
                "--unverified",
            ]
        )
    assert code == 0
    return target


@pytest.fixture
def photo(tmp_path):
    """Make a picture of any size, smooth with an edge."""

    def make(width, height):
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([x * 3, y * 3, (x + y > 30) * 160], axis=-1) % 256
        path = tmp_path / f"photo-{width}x{height}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    return make


@pytest.fixture
def run_upscale(folder, tmp_path, capsys, monkeypatch):
    """Enlarge a picture; gives the code, what was said, and the file that was to be made."""
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))

    def run(path, *options):
        out = tmp_path / "out.png"
        capsys.readouterr()
        # A machine that is short of memory for a moment must not change the arithmetic.
        common = ["--overwrite", "--device", "cpu", "--precision", "fp32", "--quantize", "none"]
        code = main(
            ["upscale", str(path), "-o", str(out), "--model", str(folder), *common, *options]
        )
        return code, capsys.readouterr().err, out

    return run


@pytest.fixture
def upscale(run_upscale):
    """Enlarge a picture, which must succeed; gives its pixels."""

    def run(path, *options):
        code, err, out = run_upscale(path, *options)
        assert code == 0, err
        with Image.open(out) as made:
            return np.array(made.convert("RGB"))

    return run


def test_the_converted_folder_holds_the_learned_tensors_alone(model, folder):
    stored = load_file(folder / "model.safetensors")
    assert stored.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(stored[name], tensor), name
    assert "attn_bias_for_masking" in varsr_tensors(model)


@pytest.mark.parametrize("size", [(16, 16), (37, 23), (5, 50), (1, 1)])
def test_pictures_of_any_size_become_exactly_four_times_as_large(size, photo, upscale):
    pixels = upscale(photo(*size))
    assert pixels.shape == (4 * size[1], 4 * size[0], 3)


def test_the_seed_decides_whatever_the_batch(photo, upscale):
    path = photo(37, 23)
    first = upscale(path, "--seed", "5")
    assert np.array_equal(first, upscale(path, "--seed", "5", "--batch", "3"))
    assert not np.array_equal(first, upscale(path, "--seed", "6"))


def test_the_seed_decides_whatever_the_threads(photo, upscale):
    path, before = photo(37, 23), torch.get_num_threads()
    try:
        one, two = (upscale(path, "--threads", n) for n in ("1", "2"))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one, two)


def test_without_the_refiner_nothing_is_random(photo, upscale):
    """Tokens are the likeliest by default; only the refiner draws noise."""
    path = photo(20, 20)
    plain = upscale(path, "--no-refiner", "--seed", "1")
    assert np.array_equal(plain, upscale(path, "--no-refiner", "--seed", "2"))
    assert not np.array_equal(plain, upscale(path, "--seed", "1"))
    fewer, more = (upscale(path, "--refiner-steps", n) for n in ("2", "9"))
    assert not np.array_equal(fewer, more)


def test_guidance_of_0_is_off_and_one_less_than_cfg(photo, upscale):
    path = photo(20, 20)
    off, strong = (upscale(path, "--guidance", n) for n in ("0", "6"))
    assert not np.array_equal(off, strong)
    assert np.array_equal(off, upscale(path, "--cfg", "1"))
    assert np.array_equal(strong, upscale(path, "--cfg", "7"))
    assert np.array_equal(strong, upscale(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", "a cat"), "takes no text"),
        (("--guidance", "2", "--cfg", "3"), "give one of the two"),
        (("--no-refiner", "--refiner-steps", "4"), "give one of the two"),
        (("--cfg", "1,2"), "4 scales"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(options, message, photo, run_upscale):
    code, err, _ = run_upscale(photo(8, 8), *options)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--guidance", "2"), "this model has no guidance"),
        (("--no-refiner",), "this model has no refiner"),
        (("--refiner-steps", "5"), "this model has no refiner"),
    ],
)
def test_a_model_without_them_refuses_guidance_and_refiner(
    options, message, photo, tmp_path, capsys
):
    code = main(["upscale", str(photo(8, 8)), "-o", str(tmp_path / "o.png"), *options])
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_pictures_are_measured_beside_bicubic(folder, photo, tmp_path, monkeypatch, capsys):
    """`nsarm eval` takes the family as it takes any model."""
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))
    data, out = tmp_path / "set", tmp_path / "measured"
    for part, side in (("lr", 24), ("hr", 96)):
        (data / part).mkdir(parents=True)
        photo(side, side).rename(data / part / "a.png")
    where = ("--dataset", str(data), "--model", str(folder), "-o", str(out))
    code = main(["eval", *where, "--device", "cpu", "--measures", "psnr_y,niqe"])
    assert code == 0, capsys.readouterr().err
    (entry,) = json.loads((out / "results.json").read_text())["sets"]
    summaries = [method["summary"]["psnr_y"] for method in entry["methods"].values()]
    assert list(entry["methods"])[1] == "bicubic"
    assert [summary["n"] for summary in summaries] == [1, 1]
    assert summaries[0]["mean"] != summaries[1]["mean"]

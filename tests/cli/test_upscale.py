"""`nsarm upscale` through its real entry: files, exit codes, stdout and stderr."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from nsarm_cli.cli import options
from nsarm_cli.errors import WeightsError
from nsarm_cli.imaging import color
from nsarm_cli.runtime import PRECISIONS


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def no_model(monkeypatch, run_cli):
    """Fail where weights are read: what is refused must be refused before."""

    def load(*_):
        pytest.fail("the weights were read first")

    monkeypatch.setattr("nsarm_cli.weights.families.load_resolver", load)


def test_the_output_is_four_times_as_large_and_its_path_is_on_stdout(run_cli, photo):
    result = run_cli("upscale", photo)
    target = photo.with_name("photo_x4.png")
    assert (result.code, result.out) == (0, f"{target}\n")
    assert pixels(target).shape == (48, 80, 3)


def test_stderr_says_which_model_runs_where_and_why(run_cli, photo):
    lines = run_cli("upscale", photo, "--device", "cpu").err.splitlines()
    assert lines[0].startswith("model nsarm-nano (the default: ")
    assert "device cpu (as asked)" in lines[0]
    assert "precision " in lines[0]
    assert lines[1].startswith("memory: needs ")
    assert "GiB are free; " in lines[1]
    assert lines[2].startswith(f"{photo}: 20x12 -> 80x48 in ")
    assert len(lines) == 3
    assert (
        "model my/folder (as asked)"
        in run_cli("upscale", photo, "--overwrite", "--model", "my/folder").err
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_ending_of_the_output_chooses_its_format(run_cli, photo, tmp_path, name, kind):
    assert run_cli("upscale", photo, "-o", tmp_path / name).code == 0
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.size) == (kind, (80, 48))


def test_a_folder_gives_a_folder(run_cli, tmp_path, make_picture):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("b.png", "a.jpg"):
        make_picture(9, 7).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    result = run_cli("upscale", folder, "-o", tmp_path / "out")
    wanted = [tmp_path / "out" / name for name in ("a_x4.png", "b_x4.png")]
    assert (result.code, result.out.splitlines()) == (0, [str(path) for path in wanted])
    assert sorted((tmp_path / "out").iterdir()) == wanted


def test_a_bad_picture_in_a_folder_is_reported_and_the_others_finish(
    run_cli, tmp_path, make_picture
):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        make_picture(9, 7).save(folder / name)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:60])
    result = run_cli("upscale", folder, "-o", tmp_path / "out")
    assert result.code == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_x4.png", "c_x4.png"]
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert str(folder / "b.png") in errors[0]
    assert "1 of 3 pictures failed" in result.err
    assert len(result.out.splitlines()) == 2


def test_the_seed_repeats_a_picture_and_another_changes_it(run_cli, photo, tmp_path):
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        assert run_cli("upscale", photo, "-o", tmp_path / name, "--seed", seed).code == 0
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "c.png"))


def test_a_picture_does_not_depend_on_the_others_of_its_run(run_cli, photo, tmp_path):
    shutil.copy(photo, tmp_path / "again.png")
    run_cli("upscale", tmp_path / "again.png", photo, "-o", tmp_path / "out/")
    run_cli("upscale", photo, "-o", tmp_path / "alone.png")
    for name in ("again_x4.png", "photo_x4.png"):
        assert np.array_equal(pixels(tmp_path / "out" / name), pixels(tmp_path / "alone.png"))


def test_settings_reach_the_model_and_the_rest_stays_as_tuned(run_cli, photo, resolver):
    run_cli("upscale", photo, "--overwrite")
    run_cli("upscale", photo, "--overwrite", "--temperature", 0, "--top-p", 0.5)
    assert resolver.samplings[0] == resolver.sampling
    assert (resolver.samplings[-1].temperature, resolver.samplings[-1].top_p) == (0, 0.5)


def test_batch_sets_how_many_windows_run_at_once(run_cli, photo, resolver):
    run_cli("upscale", photo, "--batch", 2)
    assert max(resolver.batches) == 2


def test_color_changes_the_picture(run_cli, photo, tmp_path):
    for method in options.Color:
        out = tmp_path / f"{method}.png"
        assert run_cli("upscale", photo, "-o", out, "--color", method).code == 0
    assert not np.array_equal(pixels(tmp_path / "none.png"), pixels(tmp_path / "adain.png"))


def test_threads_are_set(run_cli, photo):
    before = torch.get_num_threads()
    try:
        run_cli("upscale", photo, "--threads", 1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_choices_are_those_of_the_library():
    assert [choice.value for choice in options.Color] == list(color.METHODS)
    assert [choice.value for choice in options.Precision] == ["auto", *PRECISIONS]


def test_a_trace_is_a_safetensors_file_of_the_first_window(run_cli, photo, tmp_path):
    trace = tmp_path / "traces" / "window.safetensors"
    result = run_cli("upscale", photo, "--trace", trace, "--seed", 5)
    assert result.code == 0
    assert load_file(trace)["draws"].shape == (3, 64, 64)
    with safe_open(trace, "pt") as file:
        assert file.metadata()["seed"] == "5"
    assert [path.name for path in trace.parent.iterdir()] == ["window.safetensors"]


def test_a_trace_is_not_overwritten_unless_asked(run_cli, photo, tmp_path):
    trace = tmp_path / "t.safetensors"
    trace.write_text("mine")
    result = run_cli("upscale", photo, "--trace", trace)
    assert result.code == 3
    assert "exists already; pass --overwrite" in result.err
    assert trace.read_text() == "mine"
    assert not photo.with_name("photo_x4.png").exists()
    assert run_cli("upscale", photo, "--trace", trace, "--overwrite").code == 0
    assert load_file(trace)


def test_a_trace_never_replaces_a_picture_of_the_run(run_cli, photo, tmp_path, no_model):
    for path in (photo, tmp_path / "out.png"):
        result = run_cli(
            "upscale", photo, "-o", tmp_path / "out.png", "--trace", path, "--overwrite"
        )
        assert result.code == 3
        assert "is also a picture of this run" in result.err


def test_a_trace_of_many_pictures_or_in_a_bad_place_is_refused(run_cli, photo, tmp_path, no_model):
    other = shutil.copy(photo, tmp_path / "other.png")
    assert run_cli("upscale", photo, other, "--trace", tmp_path / "t").code == 2
    assert "is a folder" in run_cli("upscale", photo, "--trace", tmp_path).err
    (tmp_path / "file").touch()
    result = run_cli("upscale", photo, "--trace", tmp_path / "file" / "t")
    assert (result.code, "cannot be written" in result.err) == (3, True)


def make_bad(kind, path, photo):
    if kind == "missing":
        return
    content = {
        "empty": b"",
        "truncated": photo.read_bytes()[:-40],
        "not an image": b"just some words, nothing to see",
    }[kind]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("empty", "is empty"),
        ("truncated", "damaged or cut short"),
        ("not an image", "is not a PNG"),
    ],
)
def test_a_bad_picture_is_one_sentence_and_code_3(run_cli, photo, tmp_path, no_model, kind, words):
    bad = tmp_path / "bad.png"
    make_bad(kind, bad, photo)
    result = run_cli("upscale", bad)
    assert (result.code, result.out) == (3, "")
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert not (tmp_path / "bad_x4.png").exists()


def test_an_existing_output_is_kept_unless_asked(run_cli, photo, no_model):
    target = photo.with_name("photo_x4.png")
    target.write_text("mine")
    result = run_cli("upscale", photo)
    assert (result.code, target.read_text()) == (3, "mine")
    assert "exists already; pass --overwrite" in result.err


def test_overwrite_replaces_an_output(run_cli, photo):
    target = photo.with_name("photo_x4.png")
    target.write_text("mine")
    assert run_cli("upscale", photo, "--overwrite").code == 0
    assert pixels(target).shape == (48, 80, 3)


def test_an_input_is_never_replaced(run_cli, photo, no_model):
    before = photo.read_bytes()
    result = run_cli("upscale", photo, "-o", photo, "--overwrite")
    assert (result.code, photo.read_bytes()) == (3, before)
    assert "is the input" in result.err


def test_an_output_that_is_another_input_is_refused(run_cli, photo, no_model):
    other = shutil.copy(photo, photo.with_name("photo_x4.png"))
    result = run_cli("upscale", photo, other, "--overwrite")
    assert result.code == 3
    assert "is the input" in result.err


def test_two_inputs_with_one_output_are_refused(run_cli, photo, tmp_path, no_model):
    (tmp_path / "sub").mkdir()
    other = shutil.copy(photo, tmp_path / "sub" / "photo.png")
    result = run_cli("upscale", photo, other, "-o", tmp_path / "out")
    assert result.code == 3
    assert "is also that of" in result.err


def test_an_output_without_a_known_format_is_refused(run_cli, photo, tmp_path, no_model):
    result = run_cli("upscale", photo, "-o", tmp_path / "a.gif")
    assert result.code == 3
    assert ".gif" in result.err


def test_an_unwritable_place_is_refused(run_cli, photo, tmp_path, no_model):
    # A file where a folder should be: permissions do not stop the administrator.
    (tmp_path / "file").touch()
    result = run_cli("upscale", photo, "-o", tmp_path / "file" / "out.png")
    assert result.code == 3
    assert "its folder is a file" in result.err


def test_an_unknown_model_is_code_4(monkeypatch, run_cli, photo):
    def load(name, *_):
        raise WeightsError(f"model {name!r} is unknown")

    monkeypatch.setattr("nsarm_cli.weights.families.load_resolver", load)
    result = run_cli("upscale", photo, "--model", "nsarm-giga")
    assert result.code == 4
    assert result.err.endswith("error: model 'nsarm-giga' is unknown\n")


def test_an_unknown_device_is_code_5(run_cli, photo, no_model):
    result = run_cli("upscale", photo, "--device", "toaster")
    assert result.code == 5
    assert "choose auto, cpu" in result.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--temperature", "warm"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--top-p", "nan"),
        ("--seed", "-1"),
        ("--seed", "x"),
        ("--batch", "0"),
        ("--threads", "0"),
        ("--precision", "fp8"),
        ("--color", "sepia"),
        ("--sharpness", "1"),
    ],
)
def test_a_wrong_option_is_code_2(run_cli, photo, no_model, option, value):
    result = run_cli("upscale", photo, option, value)
    assert (result.code, result.out) == (2, "")
    assert option in result.err


def test_no_input_is_code_2(run_cli):
    assert run_cli("upscale").code == 2


def test_odd_names_come_through(run_cli, photo, tmp_path):
    for name in ("-dash [bold]x é.png", "two\nlines.png"):
        source = shutil.copy(photo, tmp_path / name)
        target = tmp_path / "out.png"
        result = run_cli("upscale", "--overwrite", "-o", target, "--", source)
        assert result.code == 0, result.err
        assert result.out == f"{target}\n"
        shown = name.replace("\n", "\\n")
        assert f"{shown}: 20x12" in result.err


def test_a_name_that_is_not_utf_8_is_printed_as_its_bytes(photo, tmp_path):
    # Through a process: only there are names bytes.
    source = os.fsencode(tmp_path) + b"/\xff.png"
    shutil.copy(os.fsencode(photo), source)
    program = (
        "import sys\nfrom nsarm_cli.cli import console\n"
        "console.set_up(); console.result(sys.argv[1]); console.say(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, source], capture_output=True, check=True)
    assert done.stdout == source + b"\n"


def test_a_real_process_upscales_and_says_so(photo, tmp_path):
    # The shipped model is too slow for a test on every change; a wrong one shows the way there.
    done = subprocess.run(
        [sys.executable, "-m", "nsarm_cli", "upscale", str(photo), "--model", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr

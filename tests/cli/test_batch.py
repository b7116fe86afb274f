"""Many pictures: what is taken, what is left out, and what an interruption leaves."""

import importlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from nsarm_cli.imaging.metadata import is_ours


@pytest.fixture
def folder(tmp_path, make_picture):
    """Three pictures, one of them below."""
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        make_picture(9, 7).save(root / name)
    return root


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def size(path):
    with Image.open(path) as image:
        return image.size


def test_recursion_mirrors_the_folders(run_cli, folder, tmp_path):
    assert run_cli("upscale", "-r", folder, "-o", tmp_path / "out").code == 0
    assert files(tmp_path / "out") == ["a_x4.png", "b_x4.png", "sub/c_x4.png"]


def test_without_recursion_folders_below_are_left_alone(run_cli, folder, tmp_path):
    assert run_cli("upscale", folder, "-o", tmp_path / "out").code == 0
    assert files(tmp_path / "out") == ["a_x4.png", "b_x4.png"]


@pytest.mark.parametrize("more", [(), ("--no-metadata",)])
def test_outputs_do_not_become_inputs_of_a_second_run(run_cli, folder, more):
    assert run_cli("upscale", "-r", folder, *more).code == 0
    before = files(folder)
    result = run_cli("upscale", "-r", folder, "--overwrite", *more)
    assert (result.code, files(folder)) == (0, before)
    assert "3 of 6 pictures are outputs of nsarm: skipped" in result.err
    named = run_cli("upscale", folder / "a_x4.png")
    assert (named.code, size(folder / "a_x4_x4.png")) == (0, (144, 112))


def test_an_output_folder_within_the_input_is_not_searched(run_cli, folder):
    for _ in range(2):
        result = run_cli("upscale", "-r", folder, "-o", folder / "out", "--overwrite")
        assert result.code == 0
    assert files(folder / "out") == ["a_x4.png", "b_x4.png", "sub/c_x4.png"]


def test_patterns_are_expanded_where_the_shell_does_not(run_cli, folder, tmp_path):
    assert run_cli("upscale", folder / "**" / "*.png", "-o", tmp_path / "out").code == 0
    assert files(tmp_path / "out") == ["a_x4.png", "c_x4.png"]
    assert "no picture matches" in run_cli("upscale", folder / "*.webp").err


def test_a_list_names_inputs_and_a_missing_one_stops_no_other(
    run_cli, folder, tmp_path, monkeypatch
):
    names = f"{folder / 'a.png'}\n\n{folder / 'gone.png'}\n{folder / 'b.jpg'}\r\n"
    (tmp_path / "list").write_text(names)
    result = run_cli("upscale", "--files-from", tmp_path / "list", "-o", tmp_path / "out")
    assert (result.code, files(tmp_path / "out")) == (3, ["a_x4.png", "b_x4.png"])
    assert "no such file" in result.err
    stream = io.TextIOWrapper(io.BytesIO(names.replace("\n", "\0").encode()))
    monkeypatch.setattr(sys, "stdin", stream)
    result = run_cli("upscale", "-", "-o", tmp_path / "out2")
    assert (result.code, files(tmp_path / "out2")) == (3, ["a_x4.png", "b_x4.png"])


def test_existing_outputs_are_skipped_when_asked(run_cli, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_x4.png").write_text("mine")
    result = run_cli("upscale", folder, "-o", out, "--skip-existing")
    assert (result.code, result.out) == (0, f"{out / 'b_x4.png'}\n")
    assert (out / "a_x4.png").read_text() == "mine"
    assert "1 of 2 outputs exist already: skipped" in result.err
    assert run_cli("upscale", folder, "--skip-existing", "--overwrite").code == 2


@pytest.mark.parametrize(
    ("options", "wanted", "name"),
    [
        (("--scale", 2), (18, 14), "a_x2.png"),
        (("--scale", 1.5), (14, 10), "a_x1.5.png"),
        (("--scale", 16), (144, 112), "a_x16.png"),
        (("--width", 45), (45, 35), "a_w45.png"),
        (("--height", 70), (90, 70), "a_h70.png"),
        (("--width", 90, "--height", 35), (45, 35), "a_w90h35.png"),
        (("--max-side", 20), (20, 16), "a_x4.png"),
        (("--max-side", 99, "--suffix", "-big"), (36, 28), "a-big.png"),
    ],
)
def test_sizes(run_cli, folder, tmp_path, options, wanted, name):
    assert run_cli("upscale", folder / "a.png", "-o", f"{tmp_path}/out/", *options).code == 0
    assert files(tmp_path / "out") == [name]
    assert size(tmp_path / "out" / name) == wanted


def test_a_size_beyond_sixteen_times_fails_that_picture(run_cli, folder, tmp_path):
    result = run_cli("upscale", folder / "a.png", "--width", 1000)
    assert result.code == 3
    assert "at most 16 times" in result.err
    assert run_cli("upscale", folder, "--scale", 17).code == 2
    assert run_cli("upscale", folder, "--scale", 2, "--width", 9).code == 2


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "avif"])
def test_the_format_of_a_folder_is_chosen(run_cli, folder, tmp_path, ending):
    options = ("--format", ending, "--quality", 50)
    assert run_cli("upscale", folder, "-o", tmp_path / "out", *options).code == 0
    assert files(tmp_path / "out") == [f"a_x4.{ending}", f"b_x4.{ending}"]


def test_a_template_names_outputs(run_cli, folder, tmp_path):
    template = "{number:03}/{stem}-{ext}{suffix}-s{seed}"
    before = sorted(folder.iterdir())
    options = ("--output-template", template, "--seed", 5)
    assert run_cli("upscale", folder, "-o", tmp_path / "out", *options).code == 0
    assert files(tmp_path / "out") == ["001/a-png_x4-s5.png", "002/b-jpg_x4-s5.png"]
    unnamed = ("", "{stem}/", "/abs/{stem}", "{x}", "{stem", "{0}", "{stem.__class__}")
    shaped = ("{stem!r}", "{stem!z}", "{stem:9}", "{number:99999999}", "{seed:{number}}")
    for bad in unnamed + shaped:
        assert run_cli("upscale", folder, "--output-template", bad).code == 2, bad
    refused = run_cli("upscale", folder, "--suffix", "/x")
    assert (refused.code, "separator of folders" in refused.err) == (2, True)
    assert sorted(folder.iterdir()) == before


def test_json_has_a_line_per_picture(run_cli, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no picture")
    result = run_cli("upscale", folder, "-o", tmp_path / "out", "--json", "--seed", 3)
    first, second, third = map(json.loads, result.out.splitlines())
    assert [each["outcome"] for each in (first, second, third)] == ["made", "made", "failed"]
    assert first["input"] == str(folder / "a.png")
    assert (first["input_size"], first["output_size"]) == ([9, 7], [36, 28])
    assert first["seconds"] > 0
    assert first["settings"]["seed"] == 3
    assert first["settings"]["digest"].startswith("sha256:")
    assert first["settings"]["temperature"] == 0.25
    assert "is not a PNG" in third["error"]


def test_settings_are_in_the_output_unless_unwanted(run_cli, photo, tmp_path):
    run_cli("upscale", photo, "-o", tmp_path / "a.png", "--seed", 77)
    run_cli("upscale", photo, "-o", tmp_path / "b.png", "--no-metadata")
    with Image.open(tmp_path / "a.png") as image:
        assert is_ours(image)
        assert "&quot;seed&quot;: 77" in str(image.info["xmp"]).replace('"', "&quot;")
    with Image.open(tmp_path / "b.png") as image:
        assert "xmp" not in image.info


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(run_cli, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    result = run_cli("upscale", folder, "-o", out, "--dry-run", "--scale", 3)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == f"{folder / 'a.png'} 9x7 -> {out / 'a_x3.png'} 27x21"
    assert lines[1].startswith(str(folder / "b.jpg"))
    assert lines[2].startswith("nsarm-nano on ")  # the plan of its memory
    assert "bad.png" in result.err
    assert not out.exists()


def test_resume_makes_only_what_is_missing_or_changed(run_cli, folder, tmp_path, resolver):
    out, notes = tmp_path / "out", tmp_path / "notes.jsonl"
    run = ("upscale", folder, "-o", out, "--resume", notes)
    assert run_cli(*run).code == 0
    made = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    result = run_cli(*run)
    assert (result.code, result.out) == (0, "")
    assert "2 of 2 pictures are done already" in result.err
    (out / "a_x4.png").unlink()
    result = run_cli(*run)
    assert result.out == f"{out / 'a_x4.png'}\n"
    assert (out / "b_x4.png").stat().st_mtime_ns == made["b_x4.png"]
    assert len(run_cli(*run, "--seed", 1).out.splitlines()) == 2


def test_resume_goes_on_after_a_kill_and_keeps_the_users_files(run_cli, folder, tmp_path):
    out, notes = tmp_path / "out", tmp_path / "notes.jsonl"
    out.mkdir()
    begun = {"output": str(out / "a_x4.png"), "state": "begun"}
    notes.write_text(json.dumps(begun) + '\n{"output": "cut sh')
    (out / "a_x4.png").write_text("left by the run that was killed")
    run = ("upscale", folder, "-o", out, "--resume", notes)
    assert run_cli(*run).code == 0
    assert size(out / "a_x4.png") == (36, 28)
    assert "done already" in run_cli(*run).err
    notes.unlink()
    (out / "a_x4.png").write_text("mine")
    assert run_cli(*run).code == 3
    assert (out / "a_x4.png").read_text() == "mine"
    notes.write_text("something else\nentirely\n")
    assert "is not a file of --resume" in run_cli(*run).err


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit(143)])
def test_an_interruption_keeps_what_is_done_and_nothing_half(
    run_cli, folder, tmp_path, resolver, monkeypatch, stop
):
    out, notes = tmp_path / "out", tmp_path / "notes.jsonl"
    original, calls = type(resolver).resolve, []

    def resolve(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise stop
        return original(self, *arguments)

    monkeypatch.setattr(type(resolver), "resolve", resolve)
    run = ("upscale", folder, "-o", out, "--resume", notes)
    result = run_cli(*run)
    assert result.code == (130 if stop is KeyboardInterrupt else 143)
    assert files(out) == ["a_x4.png"]
    assert size(out / "a_x4.png") == (36, 28)
    assert result.out == f"{out / 'a_x4.png'}\n"
    assert "stopped after 1 of 2 pictures" in result.err
    assert run_cli(*run).out == f"{out / 'b_x4.png'}\n"


def test_a_full_disk_fails_the_picture_and_leaves_nothing(run_cli, folder, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nsarm_cli.imaging.atomic.os.fsync", full)
    result = run_cli("upscale", folder, "-o", tmp_path / "out")
    assert (result.code, files(tmp_path / "out")) == (3, [])
    assert result.err.count("the disk is full") == 2


def test_a_full_disk_stops_the_computation_of_that_picture(
    run_cli, tmp_path, make_picture, resolver, monkeypatch
):
    make_picture(16, 2000).save(tmp_path / "long.png")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nsarm_cli.imaging.output.write_png", full)
    result = run_cli("upscale", tmp_path / "long.png")
    assert (result.code, "the disk is full" in result.err) == (3, True)
    assert len(resolver.batches) < 100
    assert files(tmp_path) == ["long.png"]


def test_two_inputs_with_one_stem_have_two_outputs(run_cli, folder, tmp_path):
    shutil.copy(folder / "b.jpg", folder / "a.jpg")
    assert run_cli("upscale", folder, "-o", tmp_path / "out").code == 0
    assert files(tmp_path / "out") == ["a_jpg_x4.png", "a_png_x4.png", "b_x4.png"]


def test_sixteen_bits_and_alpha_go_through(run_cli, tmp_path):
    import imagecodecs

    deep = np.random.default_rng(0).integers(0, 65536, (9, 11, 4)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    assert run_cli("upscale", tmp_path / "a.png", "--temperature", 0).code == 0
    large = imagecodecs.png_decode((tmp_path / "a_x4.png").read_bytes())
    assert (large.shape, large.dtype) == ((36, 44, 4), np.uint16)
    assert np.unique(large & 255).size > 200
    result = run_cli("upscale", tmp_path / "a.png", "-o", tmp_path / "a.jpg")
    assert "its 16 bits per channel become 8" in result.err
    assert "its transparent parts become white" in result.err


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_stopped_leaves_no_half_picture(tmp_path, make_picture, kill):
    make_picture(16, 4000).save(tmp_path / "long.png")
    program = (
        "import sys, time\nsys.path.insert(0, sys.argv[1])\n"
        "from conftest import FakeResolver\nfrom nsarm_cli.weights import families\n"
        "from nsarm_cli.cli.main import main\nfake = FakeResolver()\n"
        "slow = fake.resolve\n"
        "def resolve(*a):\n    time.sleep(0.02)\n    return slow(*a)\n"
        "fake.resolve = resolve\nfamilies.load_resolver = lambda *_: fake\n"
        # Ignored where tests run in the background.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(main(['upscale', sys.argv[2]]))\n"
    )
    tests = str(__import__("pathlib").Path(__file__).parents[1])
    command = [sys.executable, "-c", program, tests, str(tmp_path / "long.png")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not list(tmp_path.glob(".nsarm-*.tmp")):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        process.send_signal(kill)
        _, err = process.communicate(timeout=60)
    assert b"Traceback" not in err
    left = [name for name in files(tmp_path) if not name.startswith(".nsarm-")]
    assert left == ["long.png"]
    if kill is not signal.SIGKILL:
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[kill]
        assert files(tmp_path) == ["long.png"]


def test_an_empty_list_is_said_to_be_empty_and_no_model_is_chosen(run_cli, tmp_path):
    (tmp_path / "list").write_text("\n\n")
    result = run_cli("upscale", "--files-from", tmp_path / "list")
    assert (result.code, result.out) == (0, "")
    assert result.err == "there are no pictures to enlarge\n"


def test_rows_are_handed_on_in_low_strips_however_high_a_window_is(
    run_cli, tmp_path, make_picture, resolver, monkeypatch
):
    """A band as high as a window took many times its bytes to be finished and packed."""
    from nsarm_cli.imaging import output

    heights = []
    write = output.write_png

    def watched(file, layout, strips):
        def watch():
            for strip in strips:
                heights.append(len(strip))
                yield strip

        write(file, layout, watch())

    monkeypatch.setattr(output, "write_png", watched)
    resolver.window, resolver.overlap = 64, 4
    make_picture(70, 130).save(tmp_path / "a.png")
    assert run_cli("upscale", tmp_path / "a.png").code == 0
    assert sum(heights) == 520
    assert max(heights) <= 64


@pytest.mark.parametrize("place", ["resolve", "finish", "read"])
def test_a_picture_too_large_for_memory_does_not_stop_the_others(
    run_cli, folder, tmp_path, resolver, monkeypatch, place
):
    """PyTorch tells of a full main memory by a plain RuntimeError, in whichever thread."""
    modules = {
        "finish": "nsarm_cli.imaging.layout.finish",
        "read": "nsarm_cli.imaging.picture.read_picture",
    }
    owner, name = (resolver, place) if place == "resolve" else modules[place].rsplit(".", 1)
    if isinstance(owner, str):
        owner = importlib.import_module(owner)
    whole, calls = getattr(owner, name), []

    def full_at_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            torch.empty(2**48)  # more than any processor can address
        return whole(*arguments)

    monkeypatch.setattr(owner, name, full_at_first, raising=False)
    result = run_cli("upscale", "-r", folder, "-o", tmp_path / "out", "--quantize", "none")
    assert result.code == 3
    assert "a.png: does not fit in memory; close other programs" in result.err
    assert files(tmp_path / "out") == ["b_x4.png", "sub/c_x4.png"]


def test_a_model_too_large_for_memory_is_one_sentence(run_cli, photo, monkeypatch):
    def load(*_):
        torch.empty(2**48)

    monkeypatch.setattr("nsarm_cli.weights.families.load_resolver", load)
    result = run_cli("upscale", photo, "--device", "cpu")
    assert result.code == 5
    assert "device cpu has no room for nsarm-nano; close what else uses it" in result.err

"""File names as people have them, and places that cannot be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = (
    "two words.png", "a [b] {c} 100%.png", "Grüße, 写真 📷.png", "-x.png", "--out.png",
    "'q\"$(id)`.png",
    "new\nline.png", "dot.in.name.png", "*.png", "UPPER.PNG", "[red].png", "a" * 240 + ".png",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, make_picture):
    root = tmp_path / "odd [names] é"
    root.mkdir()
    for name in NAMES:
        make_picture(5, 4).save(root / name, "PNG")
    return root


def made(folder):
    return {path.name for path in folder.iterdir()}


def wanted(suffix="_x4"):
    return {f"{Path(name).stem}{suffix}.png" for name in NAMES}


def test_every_name_of_a_folder(run_cli, folder, tmp_path):
    result = run_cli("upscale", folder, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert made(tmp_path / "out") == wanted()


@pytest.mark.parametrize("name", NAMES)
def test_every_name_by_itself(run_cli, folder, tmp_path, name, monkeypatch):
    """A leading dash needs `--` or `./`, as everywhere."""
    monkeypatch.chdir(folder)
    result = run_cli("upscale", "-o", f"{tmp_path}/out/", "--", name)
    assert result.code == 0, result.err
    assert made(tmp_path / "out") == {f"{Path(name).stem}_x4.png"}
    assert run_cli("upscale", f"./{name}", "-o", f"{tmp_path}/out2/").code == 0


def test_every_name_from_a_list(run_cli, folder, tmp_path):
    names = b"\0".join(os.fsencode(folder / name) for name in NAMES)
    (tmp_path / "list").write_bytes(names)
    result = run_cli("upscale", "--files-from", tmp_path / "list", "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert made(tmp_path / "out") == wanted()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf_8(run_cli, tmp_path, make_picture):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    make_picture(5, 4).save(path, "PNG")
    result = run_cli("upscale", path, "--compare", "--json", "--resume", tmp_path / "notes")
    assert result.code == 0, result.err
    assert os.fsencode(path).replace(b".png", b"_x4.png") in {
        os.fsencode(each) for each in tmp_path.iterdir()
    }
    again = run_cli("upscale", path, "--compare", "--resume", tmp_path / "notes")
    assert "done already" in again.err


def test_a_name_that_becomes_too_long_is_an_error_of_that_picture(run_cli, tmp_path, make_picture):
    name = "b" * 251 + ".png"
    make_picture(5, 4).save(tmp_path / name)
    result = run_cli("upscale", tmp_path / name)
    assert (result.code, "cannot be written" in result.err) == (3, True)
    assert made(tmp_path) == {name}


def test_a_folder_that_may_not_be_written_is_refused_before_any_work(run_cli, photo, resolver):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    folder = photo.parent / "read only"
    folder.mkdir(mode=0o500)
    result = run_cli("upscale", photo, "-o", f"{folder}/")
    assert (result.code, resolver.batches) == (3, [])
    assert "cannot be written (Permission denied)" in result.err
    assert made(folder) == set()


def test_a_disk_that_really_fills_up_loses_nothing(tmp_path, make_picture):
    """A file system of 64 kB, where the system lets one be made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "nsarm-test", str(disk)]
    if os.name == "nt" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        make_picture(8, 6).save(disk / "small.png")
        make_picture(150, 150).save(tmp_path / "large.png")
        (disk / "large_x4.png").write_bytes(b"of the user")
        program = (
            "import sys\nsys.path.insert(0, sys.argv[1])\nfrom conftest import FakeResolver\n"
            "from nsarm_cli.weights import families\nfrom nsarm_cli.cli.main import main\n"
            "families.load_resolver = lambda *_: FakeResolver()\nsys.exit(main(sys.argv[2:]))\n"
        )
        tests = str(Path(__file__).parents[1])
        command = [sys.executable, "-c", program, tests, "upscale", str(tmp_path / "large.png")]
        command += [str(disk / "small.png"), "-o", f"{disk}/", "--overwrite", "--compare"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        assert "the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert (disk / "large_x4.png").read_bytes() == b"of the user"
        assert not [path for path in disk.iterdir() if path.name.startswith(".")]
        assert (disk / "small_x4.png").exists()
    finally:
        subprocess.run([shutil.which("umount"), str(disk)], check=True)

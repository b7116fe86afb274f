"""Killed anywhere, a command leaves nothing half-written, and the next one finishes the work."""

import hashlib
import shutil
from pathlib import Path

import pytest
from tests.conftest import FakeResolver
from tests.published import MICRO_8B, make_model, publish, save_parts
from tests.reliability.killing import run

from loopback import serving
from nsarm_cli.models.nsarm.config import PRESETS
from nsarm_cli.weights import families

MOST = pytest.mark.parametrize("most", [9, pytest.param(10_000, marks=pytest.mark.slow)])
"""Changes to the disk before which a process is killed, all of them when there is time."""


def with_the_stand_in() -> None:
    families.load_resolver = lambda *_: FakeResolver()  # type: ignore[assignment]


def contents(folder: Path) -> dict[str, bytes]:
    """Files of a folder by their path; hidden ones left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def points(changes: int, most: int) -> list[int]:
    """The first and the last change and some between."""
    return sorted({round(1 + i * (changes - 1) / (most - 1)) for i in range(most)})


@MOST
def test_a_batch_that_is_killed_anywhere_goes_on(tmp_path, make_picture, most):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.jpg"):
        make_picture(9, 7).save(tmp_path / "in" / name)
    inputs = contents(tmp_path / "in")
    out = tmp_path / "out"
    command = ["upscale", tmp_path / "in", "-o", out, "--resume", tmp_path / "notes.jsonl"]
    command += ["--compare", "--seed", 3]

    def nsarm(kill_at=None):
        return run(command, tmp_path, kill_at=kill_at, prepare=with_the_stand_in)

    whole = nsarm()
    assert whole.code == 0, whole.err
    wanted = contents(out)
    assert len(wanted) == 6
    assert whole.changes > 20
    for kill_at in points(whole.changes, most):
        shutil.rmtree(out)
        (tmp_path / "notes.jsonl").unlink()
        killed = nsarm(kill_at)
        assert killed.code == -9, (kill_at, killed.err)
        if out.exists():
            assert contents(out).items() <= wanted.items(), kill_at
        assert contents(tmp_path / "in") == inputs
        again = nsarm()
        assert again.code == 0, (kill_at, again.err)
        assert contents(out) == wanted, kill_at


def with_the_scaled_model() -> None:
    PRESETS[MICRO_8B.name] = MICRO_8B


@pytest.fixture
def published(text_encoder_folder, tmp_path):
    """A scaled NSARM-8B: parts in a folder, the autoencoder at an address, T5 in a folder."""
    transformer, vae, t5 = publish(make_model(), text_encoder_folder, tmp_path / "files")

    def digest(path, algorithm):
        return hashlib.new(algorithm, path.read_bytes(), usedforsecurity=False).hexdigest()

    with serving() as server:
        server.put("/vae.pth", vae.read_bytes())
        entries = [
            'role = "transformer"\npath = "transformer/NSARM.pth"\nparts = "NSARM_part_*"\n'
            f'md5 = "{digest(transformer, "md5")}"\nsources = [{{ folder = "{tmp_path}/files" }}]',
            f'role = "vae"\npath = "vae/vae.pth"\nsha256 = "{digest(vae, "sha256")}"\n'
            f'sources = [{{ url = "{server.url}/vae.pth" }}]',
        ]
        for path in sorted(t5.iterdir()):
            role = "tokenizer" if path.name.startswith("tokenizer") else "text_encoder"
            entries.append(
                f'role = "{role}"\npath = "{role}/{path.name}"\n'
                f'sha256 = "{digest(path, "sha256")}"\nsources = [{{ folder = "{t5}" }}]'
            )
        save_parts(transformer, 3)
        files = "\n".join(f"[[models.micro-8b.files]]\n{entry}" for entry in entries)
        (tmp_path / "weights.toml").write_text(f'[models.micro-8b]\nfamily = "nsarm"\n{files}\n')
        yield tmp_path / "files"


@MOST
def test_a_download_and_a_conversion_that_are_killed_anywhere_go_on(published, tmp_path, most):
    home = tmp_path / "home"
    places = {"NSARM_HOME": str(home), "NSARM_CATALOG": str(tmp_path / "weights.toml")}
    sources = contents(published)

    def nsarm(*arguments, kill_at=None):
        return run(
            ["weights", *arguments, "micro-8b"],
            tmp_path,
            kill_at=kill_at,
            prepare=with_the_scaled_model,
            environment=places,
        )

    # In one thread, so that changes to the disk come in the same order every time.
    download, convert = ("download", "--jobs", 1), ("convert",)
    wanted = {}
    for command, made in ((download, home / "downloads"), (convert, home / "models")):
        whole = nsarm(*command)
        assert whole.code == 0, whole.err
        wanted[command] = contents(made)
        shutil.rmtree(made)
        once_more = nsarm(*command).changes  # the first run has made some folders for good
        for kill_at in points(once_more, most):
            shutil.rmtree(made, ignore_errors=True)
            killed = nsarm(*command, kill_at=kill_at)
            assert killed.code == -9, (command, kill_at, killed.err)
            if command == convert and (made / "micro-8b").exists():
                # It was killed after the folder had got its name, which is the last step.
                assert contents(made) == wanted[command], kill_at
                assert "exists already" in nsarm(*command).err
                continue
            again = nsarm(*command)
            assert again.code == 0, (command, kill_at, again.err)
            assert contents(made).keys() == wanted[command].keys()
            for name, data in contents(made).items():
                # The record of a download holds times.
                assert data == wanted[command][name] or name.endswith(".json"), (kill_at, name)
        assert nsarm("verify").code == 0
    assert contents(published) == sources

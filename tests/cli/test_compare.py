"""`nsarm upscale --compare`: a picture and a page beside every output."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.imaging.metadata import is_ours


@pytest.fixture
def outputs(run_cli, photo, tmp_path):
    """Compare one picture; its output, the picture with both, the page."""
    out = tmp_path / "out"
    result = run_cli("upscale", photo, "-o", f"{out}/", "--compare")
    assert (result.code, result.out) == (0, f"{out / 'photo_x4.png'}\n")
    assert f"before and after: {out / 'photo_x4_compare.html'}" in result.err
    names = ("photo_x4.png", "photo_x4_compare.png", "photo_x4_compare.html")
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    return [out / name for name in names]


def test_the_picture_holds_both_and_says_whose_it_is(outputs, tmp_path):
    with Image.open(outputs[1]) as both, Image.open(outputs[0]) as large:
        assert is_ours(both)
        assert np.array_equal(np.asarray(both)[:, -large.width :], np.asarray(large))


def test_the_page_needs_nothing_else(outputs):
    page = outputs[2].read_text()
    assert set(re.findall(r"(?:src=|href=|url\()\W*(.{4})", page)) == {"data"}
    assert "://" not in page
    assert "default-src 'none'" in page


def test_json_names_the_comparison(run_cli, photo):
    result = run_cli("upscale", photo, "--compare", "--json")
    wanted = [str(photo.with_name(f"photo_x4_compare.{end}")) for end in ("png", "html")]
    assert json.loads(result.out)["comparison"] == wanted


@pytest.mark.parametrize("more", [(), ("--no-metadata",)])
def test_comparisons_do_not_become_inputs(run_cli, photo, more):
    folder = photo.parent
    assert run_cli("upscale", folder, "--compare", *more).code == 0
    before = sorted(path.name for path in folder.iterdir())
    assert run_cli("upscale", folder, "--overwrite", *more).code == 0
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_comparison_of_the_user_is_not_replaced_and_stops_the_run_early(run_cli, photo, resolver):
    mine = photo.with_name("photo_x4_compare.html")
    mine.write_text("mine")
    result = run_cli("upscale", photo, "--compare")
    assert (result.code, mine.read_text()) == (3, "mine")
    assert "exists already" in result.err
    assert resolver.batches == []
    assert run_cli("upscale", photo, "--compare", "--overwrite").code == 0
    assert mine.read_text() != "mine"


def test_a_comparison_with_the_name_of_another_output_is_refused(run_cli, photo, resolver):
    other = photo.with_name("photo_x4_compare.jpg")
    shutil.copy(photo, other)
    template = ("--output-template", "{stem}")
    name = photo.with_name("photo_compare.png")
    shutil.copy(photo, name)
    out = photo.parent / "out"
    result = run_cli("upscale", photo, name, "-o", out, "--compare", *template)
    assert result.code == 3
    assert "would also be written for" in result.err
    assert resolver.batches == []


def test_resume_makes_comparisons_that_an_earlier_run_was_not_asked_for(run_cli, photo, tmp_path):
    run = ("upscale", photo, "--resume", tmp_path / "notes.jsonl")
    assert run_cli(*run).code == 0
    assert run_cli(*run, "--compare").code == 0
    assert photo.with_name("photo_x4_compare.html").exists()
    assert "done already" in run_cli(*run, "--compare").err


def chromium(page, shot, width):
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    done = subprocess.run(
        [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={shot.parent / 'profile'}", f"--window-size={width},900",
            "--hide-scrollbars", "--run-all-compositor-stages-before-draw",
            "--enable-logging=stderr", "--virtual-time-budget=2000",
            f"--screenshot={shot}", page.as_uri(),
        ],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert b"CONSOLE" not in done.stderr, done.stderr.decode()  # scripts run without complaint
    shown = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    return shown[100:250]  # of the two pictures, without the slider, which is blue as well


def test_a_browser_shows_before_on_the_left_and_after_on_the_right(run_cli, tmp_path, resolver):
    """Red is what the model makes of blue, so a screenshot tells which half is which."""
    Image.new("RGB", (100, 60), (0, 0, 255)).save(tmp_path / "blue [1].png")
    original = type(resolver).resolve

    def resolve(self, lr, *arguments):
        return original(self, lr.flip(1), *arguments)

    resolver.resolve = resolve.__get__(resolver)
    done = run_cli("upscale", tmp_path / "blue [1].png", "--compare", "--temperature", 0)
    assert done.code == 0
    page = tmp_path / "blue [1]_x4_compare.html"
    shot = chromium(page, tmp_path / "shot.png", 1200)
    blue = (shot[..., 2] > 200) & (shot[..., 0] < 60)
    red = (shot[..., 0] > 200) & (shot[..., 2] < 60)
    left, right = np.nonzero(blue)[1], np.nonzero(red)[1]
    assert left.max() <= 600 <= right.min()
    assert min(blue.sum(), red.sum()) > 150 * 200 * 0.98
    # The script moves the edge.
    moved = page.read_text().replace('value="50"', 'value="75"')
    page.write_text(moved)
    shot = chromium(page, tmp_path / "shot2.png", 1200)
    assert ((shot[..., 0] > 200) & (shot[..., 2] < 60)).sum() < 0.6 * red.sum()

"""Sweeps: damage that grows, inputs that are kept, and means over the pictures."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.evaluation.curves import figure
from nsarm_cli.evaluation.extra_page import sweeps_section
from nsarm_cli.evaluation.pictures import find_set
from nsarm_cli.evaluation.robustness import SCORES
from nsarm_cli.evaluation.sweeps import (
    SWEEPS,
    as_document,
    choose_sweeps,
    damaged,
    summarise_sweep,
)
from nsarm_cli.runtime import window_generator


@pytest.mark.parametrize("name", SWEEPS)
def test_damage_grows_with_the_strength_and_repeats(name, make_picture):
    sweep, picture = SWEEPS[name], make_picture(48, 32)

    def change(strength):
        made = sweep.apply(picture, strength, window_generator(0, 3))
        assert made.size == picture.size
        assert made == sweep.apply(picture, strength, window_generator(0, 3))
        return float(np.abs(np.asarray(made, float) - np.asarray(picture, float)).mean())

    changes = [change(strength) for strength in sweep.strengths]
    assert changes == sorted(changes)
    assert changes[0] > 0
    assert len(set(changes)) == len(changes)


def test_noise_has_the_strength_that_it_says():
    grey = Image.new("RGB", (128, 128), (128, 128, 128))
    noisy = np.asarray(SWEEPS["noise"].apply(grey, 10.0, window_generator(0, 0)), float)
    assert noisy.std() == pytest.approx(10, rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=0.3)


def test_inputs_are_written_once_and_references_stay(make_set, tmp_path):
    pictures = find_set(make_set())
    found = damaged(pictures, SWEEPS["noise"], 20.0, tmp_path / "sweeps")
    assert found.name == "pictures-noise-20"
    assert [i.gt for i in found.items] == [i.gt for i in pictures.items]
    times = [item.lr.stat().st_mtime_ns for item in found.items]
    again = damaged(pictures, SWEEPS["noise"], 20.0, tmp_path / "sweeps")
    assert [item.lr.stat().st_mtime_ns for item in again.items] == times
    first, second = (np.asarray(Image.open(i.lr), float) for i in found.items[:2])
    plain = [np.asarray(Image.open(i.lr), float) for i in pictures.items[:2]]
    assert np.abs((first - plain[0]) - (second - plain[1])).mean() > 5  # noise of its own


def test_only_a_changed_picture_is_damaged_again_and_the_folder_may_be_refused(make_set, tmp_path):
    def changed():
        made = damaged(find_set(folder), SWEEPS["noise"], 20.0, tmp_path / "sweeps")
        content = {item.name: item.lr.read_bytes() for item in made.items}
        return content, {item.name: item.lr.stat().st_mtime_ns for item in made.items}

    folder = make_set()
    before, times = changed()
    (folder / "lr" / "b.png").write_bytes((folder / "lr" / "a.png").read_bytes())
    after, times_after = changed()
    assert after["b"] != before["b"]
    assert [name for name in times if times_after[name] != times[name]] == ["b"]
    (tmp_path / "sweeps" / "pictures-noise-20" / "c.png.json").unlink()  # as older runs left it
    again, times_again = changed()
    assert again == after
    assert [name for name in times if times_again[name] != times_after[name]] == ["c"]
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"file.*cannot be written"):
        damaged(find_set(folder), SWEEPS["blur"], 1.0, tmp_path / "file")


def test_the_noise_of_a_picture_depends_on_its_name_and_not_on_its_neighbours(make_set, tmp_path):
    pictures = find_set(make_set())
    whole = damaged(pictures, SWEEPS["noise"], 20.0, tmp_path / "whole")
    last = replace(pictures, items=pictures.items[2:])
    (alone,) = damaged(last, SWEEPS["noise"], 20.0, tmp_path / "alone").items
    assert alone.lr.read_bytes() == whole.items[2].lr.read_bytes()


def test_means_are_over_pictures_and_a_method_may_lack_a_strength():
    sweep = SWEEPS["blur"]
    rows = [{"m": {"a": {"lpips": 0.1}, "b": {"lpips": 0.3}}, "x": {"a": {"lpips": 0.5}}}]
    rows += [{"m": {"a": {"lpips": 0.2 + s}, "b": {"lpips": None}}} for s in range(4)]
    found = summarise_sweep("set", sweep, SCORES["lpips"], rows)
    assert found.strengths == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert found.curves["m"] == pytest.approx([0.8, 0.8, -0.2, -1.2, -2.2])
    assert found.curves["x"] == [0.5, None, None, None, None]
    assert found.measures["m"]["lpips"][0] == pytest.approx(0.2)
    text = sweeps_section([as_document(found)])
    assert text.count("<polyline") == 2
    assert "0.8000" in text


def test_a_figure_of_one_point_has_a_dot_and_names_are_escaped():
    text = figure({"<b>": [(0.0, 1.0)]}, title='"t"', x_label="x", y_label="y")
    assert "<circle" in text
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def test_unknown_kinds_are_named():
    assert [s.name for s in choose_sweeps("all")] == ["blur", "noise", "jpeg", "downscale"]
    assert [s.name for s in choose_sweeps("jpeg, blur")] == ["jpeg", "blur"]
    with pytest.raises(ConfigError, match="sweep 'fog' is unknown: choose all, or blur"):
        choose_sweeps("blur,fog")

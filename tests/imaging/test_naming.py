"""Outputs are called what a person expects, and no two alike."""

from pathlib import Path

import pytest

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.formats import output_format
from nsarm_cli.imaging.naming import output_path, output_paths


def test_without_o_the_output_stands_beside_its_source():
    assert output_path(Path("a/photo.jpg"), None, many=False) == Path("a/photo_x4.png")
    assert output_path(Path("photo.tar.jpg"), None, many=True) == Path("photo.tar_x4.png")


def test_a_file_named_by_o_is_taken_as_it_is():
    for name in ("out.png", "b/out.JPG", "out.jpeg", "out.webp"):
        assert output_path(Path("a/photo.png"), name, many=False) == Path(name)


def test_an_existing_folder_takes_the_picture(tmp_path):
    assert output_path(Path("a/p.png"), tmp_path, many=False) == tmp_path / "p_x4.png"
    named_like_a_file = tmp_path / "folder.png"
    named_like_a_file.mkdir()
    expected = named_like_a_file / "p_x4.png"
    assert output_path(Path("a/p.png"), str(named_like_a_file), many=False) == expected


def test_a_separator_at_the_end_makes_it_a_folder(tmp_path):
    out = f"{tmp_path}/new/"
    assert output_path(Path("p.png"), out, many=False) == tmp_path / "new" / "p_x4.png"
    assert output_path(Path("p.png"), f"{tmp_path}/v1.5/", many=False).parent.name == "v1.5"
    assert not (tmp_path / "new").exists()


def test_with_many_inputs_it_is_a_folder(tmp_path):
    out = tmp_path / "new"
    assert output_path(Path("p.png"), out, many=True) == out / "p_x4.png"


@pytest.mark.parametrize("name", ["photo.gif", "photo", "photo.", "v1.5"])
def test_an_unknown_ending_is_refused_with_the_known_ones(name):
    with pytest.raises(ImageError, match=r"use \.png \.jpg \.jpeg \.webp \.tif \.tiff \.avif, or"):
        output_path(Path("p.png"), name, many=False)


def test_one_file_for_many_pictures_is_refused(tmp_path):
    existing = tmp_path / "notes"
    existing.touch()
    for out in (tmp_path / "all.png", existing):
        with pytest.raises(ImageError, match="one file for several pictures; give a folder"):
            output_path(Path("p.png"), out, many=True)


def test_suffix_and_format_shape_the_names_made_here():
    path = output_path(Path("p.png"), None, many=False, suffix="-large", format="webp")
    assert path == Path("p-large.webp")
    assert output_path(Path("p.png"), "q.jpg", many=False, format="webp") == Path("q.jpg")
    with pytest.raises(ImageError, match=r"\.bmp names no format"):
        output_path(Path("p.png"), None, many=False, format="bmp")


def test_the_ending_decides_the_format_whatever_its_case():
    endings = ["png", "PNG", "jpg", "JPEG", "WebP"]
    formats = [output_format(Path(f"x.{e}")).name for e in endings]
    assert formats == ["PNG", "PNG", "JPEG", "JPEG", "WEBP"]


@pytest.mark.parametrize(
    "name", ["two words.png", "[1].png", "a[b]*?.png", "größe 写真.png", "-dash.png", ".hidden.png"]
)
def test_odd_names_are_kept(name):
    assert output_path(Path("d") / name, None, many=False).name == name[:-4] + "_x4.png"


def test_pictures_that_differ_only_in_their_ending_get_it_into_their_names():
    sources = [Path("d/a.png"), Path("d/b.png"), Path("d/a.jpg")]
    names = [path.name for path in output_paths(sources, None, many=True)]
    assert names == ["a_png_x4.png", "b_x4.png", "a_jpg_x4.png"]
    backwards = [path.name for path in output_paths(sources[::-1], None, many=True)]
    assert backwards == names[::-1]


def test_one_name_from_two_folders_is_fine_beside_the_sources(tmp_path):
    sources = [Path("d/a.png"), Path("e/a.png")]
    assert output_paths(sources, None, many=True) == [Path("d/a_x4.png"), Path("e/a_x4.png")]


@pytest.mark.parametrize("names", [["d/a.png", "e/a.png"], ["a.png", "a.jpg", "a_png.png"]])
def test_two_pictures_with_one_output_are_refused(tmp_path, names):
    with pytest.raises(ImageError, match=r"is also that of .*; rename one or run them apart"):
        output_paths([Path(name) for name in names], tmp_path, many=True)

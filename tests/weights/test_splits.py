"""Parts are put in order, gaps are seen, and a wrong join is explained."""

import io
import zipfile

import pytest

from nsarm_cli.weights.splits import explain_join, missing_between, natural_key


@pytest.mark.parametrize(
    "ordered",
    [
        ["p_aa", "p_ab", "p_ba"],
        ["p_0", "p_1", "p_2", "p_10"],
        ["p_00", "p_01", "p_10"],
        ["p_9.bin", "p_10.bin"],
    ],
)
def test_parts_sort_by_the_value_of_their_numbers(ordered):
    shuffled = [*ordered[1:], ordered[0]]
    assert sorted(shuffled, key=natural_key) == ordered


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["aa", "ab", "ac"], []),
        (["aa", "ac"], ["ab"]),
        (["ab"], ["aa"]),
        (["az", "bb"], ["a" + chr(c) for c in range(ord("a"), ord("k"))]),
        (["00", "01", "03"], ["02"]),
        (["1", "2", "4"], ["3"]),
        (["2"], ["1"]),
        (["9", "10", "12"], ["1", "2", "3", "4", "5", "6", "7", "8", "11"]),
        (["aa", "aaa"], []),
        (["a1", "a3"], []),
        (["aa", "01"], []),
        ([], []),
    ],
)
def test_a_gap_in_the_names_is_a_missing_part(names, missing):
    assert missing_between([f"p_{name}" for name in names], "p_*") == [f"p_{n}" for n in missing]


@pytest.fixture
def parts(tmp_path):
    """A checkpoint-like archive in four parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data/0", bytes(range(256)) * 1000)
    data = buffer.getvalue()
    size = -(-len(data) // 4)
    paths = [tmp_path / f"p_a{letter}" for letter in "abcd"]
    for i, path in enumerate(paths):
        path.write_bytes(data[i * size : (i + 1) * size])
    return paths


def test_parts_with_swapped_names_are_recognised(parts):
    swapped = [parts[2], parts[1], parts[0], parts[3]]
    assert "p_aa begins as a first part does but is number 3" in explain_join(swapped)


def test_a_short_part_in_the_middle_is_recognised(parts):
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    assert "p_ab has " in explain_join(parts)


def test_a_missing_end_is_recognised(parts):
    assert "p_ac does not end as a last part does" in explain_join(parts[:3])


def test_damage_that_leaves_no_trace_is_said_to_be_damage(parts):
    assert explain_join(parts).startswith("a part is damaged, missing at the end")
    assert explain_join(parts[1:2]).startswith("a part is damaged")

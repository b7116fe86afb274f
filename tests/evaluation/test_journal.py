"""Values that were measured before: kept, and told of when they cannot be."""

import pytest

from nsarm_cli.errors import ImageError
from nsarm_cli.evaluation.journal import Journal


def test_values_are_there_for_the_next_run_though_a_line_was_cut_short(tmp_path):
    with Journal(tmp_path) as journal:
        journal.add({"a": 1.5, "b": None})
    file = tmp_path / "measures-0.jsonl"
    file.write_text(file.read_text() + '{"key": "c", "va')
    with Journal(tmp_path) as journal:
        assert (journal["a"], journal["b"], "c" in journal) == (1.5, None, False)
        journal.add({"d": 2.0})
    with Journal(tmp_path) as journal:
        assert journal["d"] == 2.0


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    class Full:
        name = str(tmp_path / "measures-0.jsonl")

        def write(self, _text):
            raise OSError(28, "No space left on device")

        close = flush = lambda self: self.write("")

    with Journal(tmp_path) as journal:
        monkeypatch.setattr(journal, "_file", Full())
        with pytest.raises(ImageError, match=r"measures-0\.jsonl: the disk is full; free space"):
            journal.add({"a": 1.0})

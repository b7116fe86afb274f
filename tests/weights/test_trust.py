"""A pickle is opened only when somebody states its digest, or the user says so."""

import hashlib

import pytest

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.stored import JoinedFile
from nsarm_cli.weights.trust import Digest, Trust

CONTENT = b"PK\x03\x04 some weights"
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
MD5 = Digest("md5", hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())
OTHER = Digest("sha256", "0" * 64)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "model.pth").write_bytes(CONTENT)
    with JoinedFile([tmp_path / "model.pth"]) as opened:
        yield opened


def check(trust, file, *, pickled=True):
    counts = []
    digests = trust.check(file, pickled=pickled, on_bytes=counts.append)
    assert sum(counts) == (len(CONTENT) if digests else 0)
    return digests


@pytest.mark.parametrize("digest", [SHA256, MD5], ids=["sha256", "md5"])
@pytest.mark.parametrize("pickled", [True, False])
def test_a_file_whose_digest_is_stated_is_accepted(file, digest, pickled):
    assert check(Trust(known=(("*.pth", digest),)), file, pickled=pickled) == (digest,)
    assert check(Trust(given=(digest,)), file, pickled=pickled) == (digest,)
    # A file that the user has renamed is still the file.
    assert check(Trust(known=(("other_*", digest),)), file) == (digest,)


def test_a_pickle_of_which_nothing_is_known_is_not_opened(file):
    with pytest.raises(WeightsError, match=r"model\.pth: is a pickle whose digest is not known.*"):
        check(Trust(), file)
    with pytest.raises(WeightsError, match="--sha256 or --md5, or --unverified"):
        check(Trust(known=(("other.pth", OTHER),)), file)


def test_the_user_can_accept_a_pickle_without_a_digest(file):
    assert check(Trust(unverified=True), file) == (SHA256,)


def test_a_known_file_with_another_digest_is_refused_whatever_the_user_accepts(file):
    trust = Trust(known=(("model.pth", OTHER),), unverified=True)
    for pickled in (True, False):
        with pytest.raises(
            WeightsError, match=f"its sha256 is {SHA256.value}, instead of {OTHER.value}; get the"
        ):
            check(trust, file, pickled=pickled)


def test_a_digest_that_the_user_states_must_be_some_files(file):
    with pytest.raises(WeightsError, match=f"its sha256 is {SHA256.value}, which nobody states"):
        check(Trust(given=(OTHER,)), file)
    # It may be meant for another file, of which this one knows nothing.
    trust = Trust(given=(OTHER, MD5), unverified=True)
    found = set(check(trust, file)) | set(check(Trust(given=(OTHER,)), file, pickled=False))
    assert found == {SHA256, MD5}
    with pytest.raises(WeightsError, match=f"none of the files has the sha256 {OTHER.value}"):
        trust.check_given(found)
    trust.check_given({*found, OTHER})


def test_safetensors_of_which_nothing_is_known_are_accepted_unread(file):
    assert check(Trust(known=(("other", OTHER),)), file, pickled=False) == ()


def test_the_digest_of_parts_is_that_of_their_join_in_order(tmp_path):
    paths = [tmp_path / f"NSARM_part_a{letter}" for letter in "abc"]
    for path, begin in zip(paths, (0, 7, 14), strict=True):
        path.write_bytes(CONTENT[begin : begin + 7])
    trust = Trust(known=(("NSARM_part_*", MD5),))
    with JoinedFile(paths) as file:
        assert check(trust, file) == (MD5,)
    for wrong in (paths[::-1], paths[:2], paths[1:]):
        with (
            JoinedFile(wrong) as file,
            pytest.raises(WeightsError, match=r"other parts the md5 is .*check that all parts"),
        ):
            trust.check(file, pickled=True, on_bytes=lambda _: None)


@pytest.mark.parametrize(
    ("algorithm", "value"), [("md5", "0" * 64), ("sha1", "0" * 40), ("sha256", "X" * 64)]
)
def test_what_is_no_digest_is_not_taken_for_one(algorithm, value):
    with pytest.raises(ValueError, match="is not a"):
        Digest(algorithm, value)

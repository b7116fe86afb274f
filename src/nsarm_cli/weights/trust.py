"""Whether the bytes of a file are those that its publisher means.

A pickle is opened only after this check. PyTorch's reader admits nothing but tensors, yet it
has had holes; a file whose digest is right cannot use one.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.digests import Digests, OnBytes
from nsarm_cli.weights.splits import explain_join
from nsarm_cli.weights.stored import JoinedFile

_LENGTHS = {"sha256": 64, "md5": 32}
_BLOCK = 8 * 2**20


@dataclass(frozen=True)
class Digest:
    """A digest of a whole file, or of its parts joined in order.

    Attributes:
        algorithm: "sha256" or "md5".
        value: lower-case hexadecimal digits.

    Raises:
        ValueError: another algorithm, or a value that is none of its digests.
    """

    algorithm: str
    value: str

    def __post_init__(self) -> None:
        length = _LENGTHS.get(self.algorithm)
        if length is None or not re.fullmatch(f"[0-9a-f]{{{length}}}", self.value):
            raise ValueError(f"{self.value!r} is not a {self.algorithm} in hexadecimal digits")


@dataclass(frozen=True)
class Trust:
    """Which files may be opened.

    Attributes:
        known: pairs of a file name's pattern (`NSARM_part_*`) and a digest that its publisher
            states; of parts, the digest of all of them joined.
        given: digests that the user states.
        unverified: the user has asked to open pickles whose digest nobody states.
    """

    known: tuple[tuple[str, Digest], ...] = ()
    given: tuple[Digest, ...] = ()
    unverified: bool = False

    def check(self, file: JoinedFile, *, pickled: bool, on_bytes: OnBytes) -> tuple[Digest, ...]:
        """Read a file once and compare its digest with those stated.

        A file of a known name must have a stated digest. Of another name, a pickle is refused
        unless its digest is stated after all, or the user accepts it unverified; safetensors
        cannot hold code and are accepted.

        Args:
            file: open, read from beginning to end.
            pickled: whether opening the file could run code.
            on_bytes: told of every block.

        Returns:
            The file's digests; none where there was nothing to compare them with.

        Raises:
            WeightsError: the digest is another, or nobody states one.
        """
        stated = {digest for _, digest in self.known} | set(self.given)
        name = file.paths[0].name
        expected = [digest for pattern, digest in self.known if fnmatchcase(name, pattern)]
        if not expected and not self.given and not pickled:
            return ()
        algorithms = {digest.algorithm for digest in stated} or {"sha256"}
        found = _digests(file, sorted(algorithms, reverse=True), on_bytes)
        if stated.isdisjoint(found):
            if expected:
                raise WeightsError(_differs(file, found[0], expected))
            if pickled and not self.unverified:
                if self.given:
                    raise WeightsError(_differs(file, found[0], expected))
                raise WeightsError(
                    f"{file.paths[0]}: is a pickle whose digest is not known, so it is not opened; "
                    "give the digest that its publisher states with --sha256 or --md5, "
                    "or --unverified if you trust the file without one"
                )
        return found

    def check_given(self, found: Collection[Digest]) -> None:
        """Raise a WeightsError if the user states a digest that no file has.

        Args:
            found: digests of all files.
        """
        for digest in self.given:
            if digest not in found:
                raise WeightsError(
                    f"none of the files has the {digest.algorithm} {digest.value}; compare it "
                    "with what the publisher states, and get the file again"
                )


def _differs(file: JoinedFile, found: Digest, expected: Sequence[Digest]) -> str:
    """Say that a digest is not the one that it should be, and why that may be."""
    wanted = next((d for d in expected if d.algorithm == found.algorithm), None)
    instead = f"instead of {wanted.value}" if wanted else "which nobody states"
    if len(file.paths) == 1:
        return (
            f"{file.paths[0]}: its {found.algorithm} is {found.value}, {instead}; "
            "get the file again from its publisher"
        )
    return (
        f"{file.paths[0]}: with its {len(file.paths) - 1} other parts the {found.algorithm} is "
        f"{found.value}, {instead} ({explain_join(file.paths)}); check that all parts are there"
    )


def _digests(file: JoinedFile, algorithms: Sequence[str], on_bytes: OnBytes) -> tuple[Digest, ...]:
    digests = Digests(algorithms)
    block = bytearray(_BLOCK)
    file.seek(0)
    try:
        while count := file.readinto(block):
            digests.update(memoryview(block)[:count])
            on_bytes(count)
    except OSError as error:
        raise WeightsError(
            f"{file.paths[0]}: cannot be read ({error.strerror}); check the disk, "
            "or get the file again"
        ) from error
    return tuple(Digest(name, value) for name, value in digests.values().items())

"""What `weights.toml` says, as values: models, their files, and where those come from."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

PACKAGE = Path(__file__).parents[1]
"""The installed package; files without a source lie inside it."""


@dataclass(frozen=True)
class HubSource:
    """A file of a Hugging Face repository.

    Attributes:
        repo: "owner/name".
        revision: full commit; None takes the newest, which only a digest then pins.
        path: inside the repository. For parts, the folder that holds them ("" for the root).
    """

    repo: str
    revision: str | None
    path: str

    def __str__(self) -> str:
        at = f"@{self.revision[:8]}" if self.revision else ""
        return f"huggingface.co {self.repo}{at}"


@dataclass(frozen=True)
class DriveSource:
    """A file of a public Google Drive folder, found there by its name.

    Attributes:
        folder: the id in the folder's address.
        name: of the file, or of the parts as a pattern.
    """

    folder: str
    name: str

    def __str__(self) -> str:
        return f"Google Drive folder {self.folder}"


@dataclass(frozen=True)
class UrlSource:
    """A file at a plain address."""

    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class FolderSource:
    """A file in a folder of this machine or of a mounted disk."""

    folder: Path
    name: str

    def __str__(self) -> str:
        return f"folder {self.folder}"


Source = HubSource | DriveSource | UrlSource | FolderSource


@dataclass(frozen=True)
class FileEntry:
    """One file of a model.

    Attributes:
        role: what it is to the model; see `schema.ROLES`.
        path: inside the package for a file that ships, else inside the model's own folder.
        sources: where it can be had, best first; empty for a file that ships.
        parts: pattern of the names of the parts that joined in order make the file, or None
            for a file that comes whole. How many there are may be unknown.
        size: bytes of the whole file; None where it is not known.
        sha256: of the whole file, lower-case hexadecimal; None where it is not known.
        md5: the same; of the joined parts.
        licence: SPDX identifier; None where it is not known.
    """

    role: str
    path: PurePosixPath
    sources: tuple[Source, ...] = ()
    parts: str | None = None
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    licence: str | None = None

    @property
    def ships(self) -> bool:
        """Whether it comes with the package."""
        return not self.sources

    @property
    def location(self) -> Path:
        """Where a file that ships lies on this machine."""
        return PACKAGE / self.path

    @property
    def digests(self) -> dict[str, str]:
        """The known digests by the name of their algorithm."""
        known = {"sha256": self.sha256, "md5": self.md5}
        return {name: digest for name, digest in known.items() if digest is not None}

    def is_part(self, name: str) -> bool:
        """Whether a file name is that of one of its parts."""
        return self.parts is not None and fnmatchcase(name, self.parts)


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    Attributes:
        name: what `--model` takes.
        family: the package of `nsarm_cli.models` that runs it.
        files: at least one.
    """

    name: str
    family: str
    files: tuple[FileEntry, ...]

    @property
    def ships(self) -> bool:
        """Whether it comes with the package, ready to run."""
        return all(file.ships for file in self.files)

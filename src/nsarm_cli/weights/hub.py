"""Files of Hugging Face repositories: where they are, how large, and their digests.

The Hub's tag of a file is its SHA-256, or for small files the SHA-1 that git gives it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from nsarm_cli.weights.entries import HubSource
from nsarm_cli.weights.http import HttpRemote
from nsarm_cli.weights.remote import LocalRemote, Remote, SourceError

_ALGORITHMS = {64: "sha256", 40: "git"}


def find_on_hub(source: HubSource) -> Remote:
    """Find one file: in the library's own cache where it has it, else on the Hub.

    Raises:
        SourceError: it is not there, or the Hub cannot be reached.
    """
    cached = try_to_load_from_cache(source.repo, source.path, revision=source.revision)
    if isinstance(cached, str):
        blob = Path(cached).resolve()
        size = blob.stat().st_size
        name = PurePosixPath(source.path).name
        origin = f"{source} in the Hugging Face cache"
        return LocalRemote(name, origin, size, _digests(blob.name), path=blob)
    url = hf_hub_url(source.repo, source.path, revision=source.revision)
    with _explaining(source):
        found = get_hf_file_metadata(url)
    # The commit, so that a push between the two requests changes nothing.
    url = hf_hub_url(source.repo, source.path, revision=found.commit_hash or source.revision)
    return HttpRemote(
        PurePosixPath(source.path).name,
        str(source),
        found.size,
        {} if found.size is None else _digests(found.etag or ""),
        url=url,
        headers=build_hf_headers(),
    )


def find_parts_on_hub(source: HubSource, pattern: str) -> list[Remote]:
    """Find the files of a repository's folder whose names match a pattern.

    Raises:
        SourceError: there are none, or the Hub cannot be reached.
    """
    with _explaining(source):
        paths = HfApi().list_repo_files(source.repo, revision=source.revision)
    folder = PurePosixPath(source.path)
    matching = [
        path
        for path in map(PurePosixPath, paths)
        if path.parent == folder and fnmatchcase(path.name, pattern)
    ]
    if not matching:
        raise SourceError(f"{source}: has no files named {pattern}")
    return [find_on_hub(HubSource(source.repo, source.revision, str(path))) for path in matching]


def _digests(tag: str) -> dict[str, str]:
    algorithm = _ALGORITHMS.get(len(tag))
    if algorithm is None or not re.fullmatch("[0-9a-f]+", tag):
        return {}
    return {algorithm: tag}


@contextmanager
def _explaining(source: HubSource) -> Iterator[None]:
    """Turn the errors of the library into a short reason."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise SourceError(f"{source}: not asked, since HF_HUB_OFFLINE is set; unset it") from error
    except GatedRepoError as error:
        raise SourceError(
            f"{source}: access must be asked for on its page; then log in with: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"{source}: there is no such repository, or it is private (hf auth login)"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{source}: has no commit {source.revision}") from error
    except EntryNotFoundError as error:
        raise SourceError(f"{source}: has no file {source.path}") from error
    except HfHubHTTPError as error:
        raise SourceError(f"{source}: HTTP {error.response.status_code}") from error
    except httpx2.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"{source}: cannot be reached ({reason})") from error
    except HFValidationError as error:
        raise SourceError(f"{source}: {error}") from error

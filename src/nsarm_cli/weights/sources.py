"""From a file of the catalogue to what its sources offer for it."""

from pathlib import PurePosixPath

from nsarm_cli.weights.drive import find_on_drive
from nsarm_cli.weights.entries import (
    DriveSource,
    FileEntry,
    FolderSource,
    HubSource,
    Source,
    UrlSource,
)
from nsarm_cli.weights.http import HttpRemote
from nsarm_cli.weights.hub import find_on_hub, find_parts_on_hub
from nsarm_cli.weights.remote import LocalRemote, Remote, SourceError


def find(source: Source, file: FileEntry) -> list[Remote]:
    """Ask a source for a file.

    Args:
        source: of the file.
        file: in one piece, or in parts.

    Returns:
        The file, or all parts that the source has, in no order.

    Raises:
        SourceError: it is not there, or the source cannot be reached.
    """
    match source:
        case HubSource() if file.parts is not None:
            return find_parts_on_hub(source, file.parts)
        case HubSource():
            return [find_on_hub(source)]
        case DriveSource():
            return find_on_drive(source)
        case FolderSource():
            return _find_in_folder(source)
        case UrlSource():
            return [HttpRemote(file.path.name, str(source), file.size, url=source.url)]


def _find_in_folder(source: FolderSource) -> list[Remote]:
    try:
        found = [path for path in source.folder.glob(source.name) if path.is_file()]
    except (OSError, ValueError, NotImplementedError) as error:
        raise SourceError(f"{source}: cannot be read ({error})") from error
    if not found:
        raise SourceError(f"{source}: has no file named {source.name}")
    return [
        LocalRemote(PurePosixPath(path.name).name, str(source), path.stat().st_size, path=path)
        for path in found
    ]

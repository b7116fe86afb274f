"""Text files of a run that appear whole or not at all."""

import contextlib
import os
from pathlib import Path

from nsarm_cli.errors import ConfigError
from nsarm_cli.imaging.atomic import temporary_name


def write_text_atomically(text: str, path: Path) -> None:
    """Write under a temporary name, flush to disk, then rename.

    Args:
        text: written as UTF-8, line ends as they are.
        path: its folder is made if there is none; a file of this name is replaced.

    Raises:
        ConfigError: the disk refuses; the old file is as it was.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror or error}); free space or use another "
            "--out folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone already, or never made
            temporary.unlink()

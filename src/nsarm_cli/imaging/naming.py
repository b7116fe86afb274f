"""What the outputs of a run are called; nothing here touches the disk but to look."""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.formats import OUTPUT_FORMATS, output_format


def output_path(
    source: Path,
    out: str | Path | None,
    many: bool,
    suffix: str = "_x4",
    format: str | None = None,  # noqa: A002 (the word users know)
) -> Path:
    """Name the output of one picture.

    Args:
        source: the input.
        out: None, for a name beside the source; a folder (an existing one, one spelt with a
            separator at its end, or any when there are many inputs), for that name in it;
            else the file itself. Pass the text as typed: a `Path` forgets a final separator.
        many: there may be several pictures, so `out` cannot be a file.
        suffix: put between the source's stem and the ending.
        format: ending of names made here, without the dot: "png" (the default), "jpg",
            "jpeg" or "webp"; a file named by `out` keeps its own.

    Returns:
        The path; nothing is created.

    Raises:
        ImageError: an ending that cannot be written, or a file for many pictures.
    """
    name = f"{source.stem}{suffix}.{format or 'png'}"
    output_format(Path(name))
    if out is None:
        return source.with_name(name)
    target = Path(out)
    mode = _mode(target)
    if stat.S_ISDIR(mode) or str(out).endswith(tuple(filter(None, (os.sep, os.altsep)))):
        return target / name
    if not many:
        output_format(target)
        return target
    if mode or target.suffix.lower() in OUTPUT_FORMATS:
        raise ImageError(f"{out}: is one file for several pictures; give a folder instead")
    return target / name


def output_paths(
    sources: Sequence[Path],
    out: str | Path | None,
    many: bool,
    suffix: str = "_x4",
    format: str | None = None,  # noqa: A002 (the word users know)
) -> list[Path]:
    """Name the outputs of all pictures of a run, no two alike.

    Pictures that differ only in their ending get it into their names: a.png and a.jpg become
    a_png_x4.png and a_jpg_x4.png, in whatever order they come.

    Args:
        sources: as `files.find_images` lists them.
        out: see `output_path`; so are the others.
        many: there may be several pictures, so `out` cannot be a file.
        suffix: put between the source's stem and the ending.
        format: ending of names made here, without the dot.

    Returns:
        One path per source, in their order.

    Raises:
        ImageError: see `output_path`; or two sources of one name would share an output.
    """
    plain = [output_path(source, out, many, suffix, format) for source in sources]
    count = Counter(plain)
    owners: dict[Path, Path] = {}
    for source, path in zip(sources, plain, strict=True):
        target = path
        if count[path] > 1 and source.suffix:
            target = output_path(source, out, many, f"_{source.suffix[1:]}{suffix}", format)
        if target in owners:
            raise ImageError(
                f"{source}: its output {target} is also that of {owners[target]}; "
                "rename one or run them apart"
            )
        owners[target] = source
    return list(owners)


def _mode(path: Path) -> int:
    """Kind of file behind `path`; 0 when there is none, or when it may not be seen."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0  # writing will say why

"""What the outputs of a run are called; nothing here touches the disk but to look."""

import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter

from nsarm_cli.errors import ImageError
from nsarm_cli.imaging.formats import OUTPUT_FORMATS, output_format

TEMPLATE_FIELDS = ("stem", "name", "ext", "suffix", "format", "seed", "number")
"""What a template of names may hold in braces."""

_NUMBERS = ("seed", "number")
"""Fields that may have a width."""


def check_template(template: str) -> None:
    """Refuse a template that cannot name outputs.

    Raises:
        ValueError: braces that do not match, unknown fields, formats other than the digits of a
            number, an absolute path, or no name at its end.
    """
    for _, field, spec, conversion in Formatter().parse(template):
        if field is None:
            continue
        if field not in TEMPLATE_FIELDS:
            raise ValueError(
                f"{{{field}}} is unknown; known are "
                + " ".join(f"{{{known}}}" for known in TEMPLATE_FIELDS)
            )
        is_plain = not spec or (field in _NUMBERS and re.fullmatch(r"0?[1-9]", spec))
        if conversion or not is_plain:
            raise ValueError(
                f"{{{field}}} cannot be formatted so; {{number:04}} and {{seed:04}} have four "
                "digits, up to nine are possible, and the others are taken as they are"
            )
    if not template or template.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        raise ValueError("it ends without a name; add {stem}")
    if Path(template).is_absolute():
        raise ValueError("it names a place of its own; choose the folder with -o")
    template.format_map(dict.fromkeys(TEMPLATE_FIELDS, 0))


def output_path(
    source: Path,
    out: str | Path | None,
    many: bool,
    suffix: str = "_x4",
    format: str | None = None,  # noqa: A002 (the word users know)
    *,
    folder: Path = Path(),
    template: str | None = None,
    fields: Mapping[str, object] | None = None,
) -> Path:
    """Name the output of one picture.

    Args:
        source: the input.
        out: None, for a name beside the source; a folder (an existing one, one spelt with a
            separator at its end, or any when there are many inputs), for that name in it;
            else the file itself. Pass the text as typed: a `Path` forgets a final separator.
        many: there may be several pictures, so `out` cannot be a file.
        suffix: put between the source's stem and the ending.
        format: ending of names made here, without the dot; "png" by default; a file named by
            `out` keeps its own.
        folder: of the source within the folder that was searched; repeated within `out`.
        template: of the name, with `TEMPLATE_FIELDS` in braces; checked by `check_template`.
        fields: values of "seed" and "number".

    Returns:
        The path; nothing is created.

    Raises:
        ImageError: an ending that cannot be written, or a file for many pictures.
    """
    name = f"{source.stem}{suffix}.{format or 'png'}"
    if template is not None:
        name = template.format_map(
            {
                "seed": 0,
                "number": 1,
                **(fields or {}),
                "stem": source.stem,
                "name": source.name,
                "ext": source.suffix[1:],
                "suffix": suffix,
                "format": format or "png",
            }
        )
        if Path(name).suffix.lower() not in OUTPUT_FORMATS:
            name = f"{name}.{format or 'png'}"
    output_format(Path(name))
    if out is None:
        return source.parent / name
    target = Path(out)
    mode = _mode(target)
    if stat.S_ISDIR(mode) or str(out).endswith(tuple(filter(None, (os.sep, os.altsep)))):
        return target / folder / name
    if not many:
        output_format(target)
        return target
    if mode or target.suffix.lower() in OUTPUT_FORMATS:
        raise ImageError(f"{out}: is one file for several pictures; give a folder instead")
    return target / folder / name


def output_paths(
    sources: Sequence[Path],
    out: str | Path | None,
    many: bool,
    suffix: str = "_x4",
    format: str | None = None,  # noqa: A002 (the word users know)
    *,
    folders: Sequence[Path] | None = None,
    template: str | None = None,
    fields: Mapping[str, object] | None = None,
) -> list[Path]:
    """Name the outputs of all pictures of a run, no two alike.

    Pictures that differ only in their ending get it into their names: a.png and a.jpg become
    a_png_x4.png and a_jpg_x4.png, in whatever order they come.

    Args:
        sources: as `finding.find_pictures` lists them.
        out: see `output_path`; so are the others.
        many: there may be several pictures, so `out` cannot be a file.
        suffix: put between the source's stem and the ending.
        format: ending of names made here, without the dot.
        folders: of the sources within the folders that were searched.
        template: of the names; its "number" counts the sources from 1.
        fields: value of "seed".

    Returns:
        One path per source, in their order.

    Raises:
        ImageError: see `output_path`; or two sources of one name would share an output.
    """
    folders = folders or [Path()] * len(sources)

    def named(index: int, suffix: str) -> Path:
        numbered = {**(fields or {}), "number": index + 1}
        source, folder = sources[index], folders[index]
        return output_path(
            source, out, many, suffix, format, folder=folder, template=template, fields=numbered
        )

    plain = [named(index, suffix) for index in range(len(sources))]
    count = Counter(plain)
    owners: dict[Path, Path] = {}
    for index, (source, path) in enumerate(zip(sources, plain, strict=True)):
        target = path
        if count[path] > 1 and source.suffix:
            target = named(index, f"_{source.suffix[1:]}{suffix}")
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

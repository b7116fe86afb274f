"""Options of `nsarm upscale` about pictures: their size, names and formats."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """Choices of `--format`: endings of `imaging.formats.OUTPUT_FORMATS`."""

    PNG = "png"
    JPG = "jpg"
    WEBP = "webp"
    TIF = "tif"
    AVIF = "avif"


def _template(value: str | None) -> str | None:
    from nsarm_cli.imaging.naming import check_template

    if value is not None:
        try:
            check_template(value)
        except (ValueError, LookupError) as error:
            raise typer.BadParameter(f"{value!r}: {error}.") from error
    return value


def _suffix(value: str | None) -> str | None:
    if value is not None and set(value) & set("/\\"):
        raise typer.BadParameter(
            f"{value!r} has a separator of folders; choose the folder with -o."
        )
    return value


Out = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--out",
        help="File (.png, .jpg, .webp, .tif or .avif) for one picture, or folder.",
        show_default="beside the input, as NAME_x4.png",
        metavar="OUT",
    ),
]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace outputs that exist; never an input.")
]

SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out pictures whose output exists.")
]

Recursive = Annotated[
    bool,
    typer.Option(
        "-r", "--recursive", help="Take the folders in folders too; OUT gets the same folders."
    ),
]

FilesFrom = Annotated[
    Path | None,
    typer.Option(
        help="Take inputs from this list, one a line, beside those named; - is standard input.",
        metavar="FILE",
        show_default=False,
        allow_dash=True,
    ),
]

Scale = Annotated[
    float | None,
    typer.Option(
        help="Enlarge by this factor, from 1 to 16.",
        min=1,
        max=16,
        metavar="NUMBER",
        show_default="the model's: 4",
    ),
]

Width = Annotated[
    int | None,
    typer.Option(help="Make pictures this wide.", min=1, metavar="PIXELS", show_default=False),
]

Height = Annotated[
    int | None,
    typer.Option(
        help="Make pictures this high; with --width, fit into both.",
        min=1,
        metavar="PIXELS",
        show_default=False,
    ),
]

MaxSide = Annotated[
    int | None,
    typer.Option(
        help="Make no side longer than this.", min=1, metavar="PIXELS", show_default=False
    ),
]

FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="Format of outputs in a folder.", show_default="png"),
]

Quality = Annotated[
    int | None,
    typer.Option(
        help="Quality of JPEG, WebP and AVIF, from 1 to 100.",
        min=1,
        max=100,
        metavar="N",
        show_default="95; 90 for AVIF",
    ),
]

Suffix = Annotated[
    str | None,
    typer.Option(
        help="What outputs have in their names behind that of the input.",
        metavar="TEXT",
        callback=_suffix,
        show_default="_x4, or the size asked for",
    ),
]

OutputTemplate = Annotated[
    str | None,
    typer.Option(
        help="Names of outputs, made of {stem} {name} {ext} {suffix} {format} {seed} {number}.",
        metavar="TEXT",
        callback=_template,
        show_default="{stem}{suffix}.{format}",
    ),
]

NoMetadata = Annotated[
    bool,
    typer.Option(
        "--no-metadata", help="Write no EXIF, XMP, resolution or settings; colours stay right."
    ),
]

Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Also show before and after, as NAME_x4_compare.png and as a page with a slider.",
    ),
]

Resume = Annotated[
    Path | None,
    typer.Option(
        help="Note finished pictures in this file, and leave out those it names: the same "
        "command goes on where it stopped.",
        metavar="FILE",
        show_default=False,
    ),
]

Json = Annotated[
    bool, typer.Option("--json", help="Print one line of JSON per picture in place of its path.")
]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what would be done and what memory it needs; write nothing."
    ),
]

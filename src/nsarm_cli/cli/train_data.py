"""`nsarm train check-data`: what the training pictures are, before a run depends on them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nsarm_cli.cli import console
from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    from nsarm_cli.training.inspection import Findings

app = typer.Typer()

_SHOWN = 10

Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        help="Folder, .jsonl list or .tar shard (path, pattern, URL, pipe:COMMAND); repeatable.",
        metavar="PATH",
    ),
]


@app.command("check-data")
def check_data(
    *,
    data: Data,
    crop: Annotated[
        int, typer.Option(help="Side of the crops that training takes.", min=32, metavar="PIXELS")
    ] = 256,
    degradation: Annotated[
        str, typer.Option(help="Recipe that training degrades them by, or none.", metavar="NAME")
    ] = "realesrgan-light",
    workers: Annotated[
        int, typer.Option(help="Processes that will prepare batches.", min=1, metavar="N")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read all training pictures once: sizes, shapes, copies, corrupt ones, speed.

    Ends with code 3 when something cannot be read.
    """
    import json

    from nsarm_cli.degradation.recipe import RECIPES
    from nsarm_cli.training.inspection import inspect
    from nsarm_cli.training.patterns import find_sources

    if degradation not in {*RECIPES, "none"}:
        raise typer.BadParameter(
            f'"{degradation}" is unknown; choose one of {", ".join(RECIPES)}, none.',
            param_hint="--degradation",
        )
    recipe = RECIPES.get(degradation)
    if recipe is not None and crop % recipe.scale:
        raise typer.BadParameter(
            f"{crop} pixels do not suit; give a multiple of {recipe.scale}.", param_hint="--crop"
        )
    with console.progress_bar(1) as bar:

        def show(done: int, total: int) -> None:
            bar.begin(0, f"reading {done + 1} of {total}")(done / total)

        found = inspect(find_sources(data), crop, recipe, show)
    summary = _summary(found, workers)
    if as_json:
        console.result(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _show(summary)
    if found.corrupt:
        raise ImageError(
            f"{len(found.corrupt)} pictures, captions, lines or shards cannot be used; mend or "
            "remove them, or let training pass them over with corrupt in its settings"
        )


def _summary(found: "Findings", workers: int) -> dict[str, Any]:
    heights = sorted(height for height, _ in found.sides)
    widths = sorted(width for _, width in found.sides)
    reading, cutting = found.decoded_per_s, found.crops_per_s
    per_worker = 1 / (1 / reading + 1 / cutting) if reading and cutting else 0.0
    return {
        "pictures": found.pictures,
        "height": _spread(heights),
        "width": _spread(widths),
        "ratios": {f"{ratio:g}": count for ratio, count in found.templates.most_common()},
        "smaller_than_a_crop": found.small,
        "long_captions": found.long,
        "short_captions": found.short,
        "copies": found.copies,
        "wrong_counts": found.claims,
        "wrong_ratios": found.wrong_ratios,
        "corrupt": found.corrupt,
        "decoded_per_second_and_process": round(reading, 1),
        "crops_per_second_and_process": round(cutting, 1),
        "expected_crops_per_second": round(per_worker * workers, 1),
        "workers": workers,
    }


def _spread(values: list[int]) -> dict[str, int]:
    if not values:
        return {}
    return {"least": values[0], "median": values[len(values) // 2], "most": values[-1]}


def _show(summary: dict[str, Any]) -> None:
    console.result(f"pictures: {summary['pictures']}")
    for side in ("height", "width"):
        spread = summary[side]
        if spread:
            console.result(
                f"{side}: {spread['least']} to {spread['most']} pixels, median {spread['median']}"
            )
    ratios = ", ".join(f"{ratio}: {count}" for ratio, count in summary["ratios"].items())
    console.result(f"nearest ratios, height by width: {ratios or 'none'}")
    console.result(f"captions: {summary['long_captions']} long, {summary['short_captions']} short")
    copies = [", ".join(names) for names in summary["copies"]]
    for title, lines in (
        ("smaller than a crop", summary["smaller_than_a_crop"]),
        ("same pixels", copies),
        ("lists with another count in their name", summary["wrong_counts"]),
        ("another ratio than claimed", summary["wrong_ratios"]),
        ("cannot be used", summary["corrupt"]),
    ):
        console.result(f"{title}: {len(lines)}")
        for line in lines[:_SHOWN]:
            console.result(f"  {line}")
        if len(lines) > _SHOWN:
            console.result(f"  and {len(lines) - _SHOWN} more; --json lists all")
    console.result(
        f"speed of a process: {summary['decoded_per_second_and_process']} pictures read and "
        f"{summary['crops_per_second_and_process']} crops made per second"
    )
    console.result(
        f"expected with {summary['workers']} workers, if each has a core: "
        f"{summary['expected_crops_per_second']} crops per second"
    )

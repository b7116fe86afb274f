"""`nsarm eval`: how good outputs are, on known sets or your own pictures."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nsarm_cli.cli import console, eval_text, options
from nsarm_cli.cli.eval_model import Prompts
from nsarm_cli.cli.eval_run import Run

app = typer.Typer()


class ProtocolOption(StrEnum):
    """Choices of `--protocol`: "auto" and those of `evaluation.protocol`."""

    AUTO = "auto"
    NATIVE = "native"
    PAPER = "paper"


class ScoreOption(StrEnum):
    """Choices of `--score`: the names in `evaluation.robustness.SCORES`."""

    PAPER = "paper"
    LPIPS = "lpips"
    DISTS = "dists"
    NIQE = "niqe"


@app.command("eval")
def evaluate(
    *,
    dataset: Annotated[
        list[str],
        typer.Option(
            help="RealSR, DRealSR, RP60, DIV2K, or a folder of pictures; may be repeated.",
            metavar="SET",
        ),
    ],
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the known sets; RealSR, DRealSR and RP60 are fetched to it.",
            show_default="datasets in the folder of weights",
            metavar="DIR",
        ),
    ] = None,
    protocol: Annotated[
        ProtocolOption,
        typer.Option(
            help="native: enlarge four times and judge; paper: enlarge the input twice first and "
            "halve the result; auto: paper for known sets, native for folders."
        ),
    ] = ProtocolOption.AUTO,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a model, a model folder, or USER/REPO[@REVISION] of the Hugging Face "
            "Hub; none evaluates only --methods.",
            show_default="nsarm-nano",
            metavar="MODEL",
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Outputs of another method, named as the inputs; may be repeated.",
            metavar="NAME=DIR",
        ),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(
            help="Names of measures with commas between.",
            show_default="all that can be computed",
            metavar="NAMES",
        ),
    ] = None,
    measure_weights: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the weights of LPIPS and DISTS.",
            show_default="where nsarm weights measures puts them",
            metavar="DIR",
        ),
    ] = None,
    score: Annotated[
        ScoreOption | None,
        typer.Option(
            help="What failures are counted by.",
            show_default="the first that can be computed",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder of the report.", metavar="DIR")
    ] = Path("nsarm-eval"),
    limit: Annotated[
        int | None,
        typer.Option(help="Take the first N pictures of each set.", min=1, metavar="N"),
    ] = None,
    shown: Annotated[
        int,
        typer.Option(
            "--show",
            help="Pictures of each set in report.html: greatest gains and failures.",
            min=0,
            metavar="N",
        ),
    ] = 20,
    prompts: Annotated[
        Prompts,
        typer.Option(help="Prompt of the model: its own, the caption of each picture, or both."),
    ] = Prompts.FIXED,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of captions, or folder that has SET.jsonl; may be repeated.",
            show_default="the manifest of the set, captions below --data-root, or those fetched",
            metavar="PATH",
        ),
    ] = None,
    speed: Annotated[
        bool,
        typer.Option("--speed", help="Time the first picture of the first set, stage by stage."),
    ] = False,
    sweep: Annotated[
        str | None,
        typer.Option(
            help="Measure under growing damage too: all, or of blur, noise, jpeg, downscale.",
            show_default="none",
            metavar="KINDS",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make outputs of other settings again.")
    ] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write images.parquet too; needs pyarrow.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what results.json holds instead of tables.")
    ] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: options.PrecisionOption = options.Precision.AUTO,
    threads: options.Threads = None,
) -> None:
    """Measure a model and other methods on sets of pictures.

    Writes report.html, results.json and images.csv, and keeps the model's outputs and all values,
    so that a run goes on where it stopped. Under torchrun, pictures are divided among processes.
    """
    from nsarm_cli.evaluation.ranks import ranks_of_environment

    run = Run(
        sets=dataset,
        data_root=data_root,
        protocol=protocol.value,
        model=model,
        methods=_named_folders(methods or []),
        measures=None if measures is None else [m.strip() for m in measures.split(",")],
        measure_weights=measure_weights,
        score=None if score is None else score.value,
        out=out,
        limit=limit,
        shown=shown,
        overwrite=overwrite,
        parquet=parquet,
        seed=seed,
        device=device,
        precision=precision.value,
        threads=threads,
        prompts=prompts,
        captions=tuple(captions or ()),
        speed=speed,
        sweep=sweep,
    )
    with ranks_of_environment() as ranks:
        report = run.evaluate(ranks)
        if not ranks.is_first:
            return
    if as_json:
        console.result((out / "results.json").read_text("utf-8").rstrip())
    else:
        eval_text.show(report)


def _named_folders(texts: list[str]) -> dict[str, Path]:
    """Read NAME=DIR, each name once."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise typer.BadParameter(f"{text!r} is not NAME=DIR.", param_hint="--methods")
        if name in found:
            raise typer.BadParameter(f"{name!r} is named twice.", param_hint="--methods")
        found[name] = Path(folder)
    return found

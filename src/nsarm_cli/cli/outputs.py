"""Which pictures a run reads and what it calls their outputs, settled before any work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from nsarm_cli.cli.trace import check_trace


@dataclass(frozen=True)
class Job:
    """One picture to make.

    Attributes:
        source: the input.
        target: the output.
    """

    source: Path
    target: Path


def plan_jobs(
    inputs: Sequence[Path], out: str | None, trace: Path | None, *, overwrite: bool
) -> list[Job]:
    """Pair inputs with outputs, refusing before any work what could not be written after it."""
    from nsarm_cli.imaging.files import check_output, find_images
    from nsarm_cli.imaging.naming import output_paths

    sources = find_images(inputs)
    targets = output_paths(sources, out, many=len(inputs) > 1 or inputs[0].is_dir())
    for target in targets:
        # Only what exists can be an input; comparing all pairs is slow in a large folder.
        check_output(target, sources if target.exists() else (), overwrite)
    if trace is not None:
        if len(sources) > 1:
            raise typer.BadParameter(
                f"it records one picture, not {len(sources)}; give one INPUT.",
                param_hint="--trace",
            )
        check_trace(trace, [*sources, *targets], overwrite=overwrite)
    return [Job(source, target) for source, target in zip(sources, targets, strict=True)]

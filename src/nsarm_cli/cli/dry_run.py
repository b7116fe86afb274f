"""`nsarm upscale --dry-run`: the pictures of a run, from their headers alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nsarm_cli.cli import console
from nsarm_cli.cli.outputs import Job, is_there
from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    from nsarm_cli.imaging.sizes import Size

_MODEL_SCALE = 4
"""Of every family; the model is not loaded."""


def show_jobs(jobs: Sequence[Job], size: "Size") -> None:
    """Print input, output and sizes of each picture on stdout; what is wrong on stderr.

    Args:
        jobs: of the run.
        size: that was asked for.
    """
    from nsarm_cli.imaging.formats import check_size
    from nsarm_cli.imaging.opening import upright_size

    for job in jobs:
        try:
            width, height = upright_size(job.source)
            after = size.of(job.source, width, height, _MODEL_SCALE)
            check_size(job.target, *after)
        except ImageError as error:
            console.error(str(error))
            continue
        remark = ""
        if any(map(is_there, job.outputs)):
            remark = (
                " (replaces what is there)"
                if job.overwrite
                else " (exists already: the run would stop)"
            )
        console.result(
            f"{job.source} {width}x{height} -> {job.target} {after[0]}x{after[1]}{remark}"
        )

"""Which pictures a run reads and what it calls their outputs, settled before any work."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nsarm_cli.cli import console
from nsarm_cli.cli.trace import check_trace
from nsarm_cli.errors import ImageError

if TYPE_CHECKING:
    from nsarm_cli.imaging.finding import Found
    from nsarm_cli.imaging.sizes import Size

_LISTED = Path("-")


@dataclass(frozen=True)
class Job:
    """One picture to make.

    Attributes:
        source: the input.
        target: the output.
        overwrite: files of the names of its outputs may be replaced.
        comparison: the picture and the page of `--compare`, or None.
    """

    source: Path
    target: Path
    overwrite: bool = False
    comparison: tuple[Path, Path] | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All files that are written, the picture first."""
        return (self.target, *(self.comparison or ()))


def is_there(path: Path) -> bool:
    """Whether a path leads to something; false too for a name that no file can have."""
    return os.path.exists(path)  # noqa: PTH110 (a `Path` raises for a name that is too long)


@dataclass(frozen=True)
class OutputOptions:
    """The options that decide inputs and outputs.

    Attributes:
        inputs: files, folders, patterns; "-" for a list on standard input.
        files_from: a list of more, or None.
        out: file or folder, as typed, or None.
        recursive: folders stand for their folders too.
        overwrite: outputs that exist are replaced.
        skip_existing: pictures whose output exists are left out.
        format: ending of names made here, without the dot.
        suffix: None for one that says the size.
        template: of names.
        seed: for the template.
        size: what is asked for.
        trace: file of `--trace`.
        compares: every output gets a comparison beside it.
    """

    inputs: Sequence[Path]
    files_from: Path | None
    out: str | None
    recursive: bool
    overwrite: bool
    skip_existing: bool
    format: str | None
    suffix: str | None
    template: str | None
    seed: int
    size: "Size"
    trace: Path | None
    compares: bool = False

    @property
    def names_some(self) -> bool:
        """Whether pictures were named at all."""
        return bool(self.inputs) or self.files_from is not None

    def plan(self, ours: frozenset[Path] = frozenset(), *, look_only: bool = False) -> list[Job]:
        """Pair inputs with outputs, refusing before any work what could not be written after it.

        Args:
            ours: outputs of an earlier part of this run, which may be replaced.
            look_only: make no folder and write nothing.

        Raises:
            ImageError: an input is missing, or an output must not or cannot be written.
            BadParameter: options that contradict each other.
        """
        from nsarm_cli.imaging.atomic import sweep
        from nsarm_cli.imaging.comparison import comparison_paths
        from nsarm_cli.imaging.files import check_output, check_place

        self._check()
        found = self._without_outputs(self._found())
        if not found:
            console.say("there are no pictures to enlarge")
            return []
        jobs = []
        sources = [each.path for each in found]
        for source, target in zip(sources, self._names(found), strict=True):
            if self.skip_existing and is_there(target) and not _is_one_of(target, sources):
                continue
            comparison = comparison_paths(target) if self.compares else None
            job = Job(source, target, comparison=comparison)
            there = [target, *(path for path in job.outputs if is_there(path))]
            may_replace = self.overwrite or all(path.absolute() in ours for path in there)
            if not look_only:
                for path in job.outputs:
                    # Only what exists can be an input; comparing all pairs is slow.
                    inputs = sources if is_there(path) else ()
                    check = check_output if path is target else check_place
                    check(path, inputs, may_replace)
            jobs.append(replace(job, overwrite=may_replace))
        if not look_only:
            for folder in {job.target.parent for job in jobs}:
                sweep(folder)
        self._check_apart(jobs)
        if len(jobs) < len(found):
            console.say(f"{len(found) - len(jobs)} of {len(found)} outputs exist already: skipped")
        if self.trace is not None:
            if len(jobs) > 1:
                raise typer.BadParameter(
                    f"it records one picture, not {len(jobs)}; give one INPUT.",
                    param_hint="--trace",
                )
            targets = [path for job in jobs for path in job.outputs]
            check_trace(self.trace, [*sources, *targets], overwrite=self.overwrite)
        return jobs

    def _check(self) -> None:
        if self.skip_existing and self.overwrite:
            raise typer.BadParameter("it contradicts --overwrite.", param_hint="--skip-existing")
        if self.size.scale is not None and (self.size.width or self.size.height):
            raise typer.BadParameter(
                "give either a factor, or a width or height.", param_hint="--scale"
            )
        if not self.names_some:
            raise typer.BadParameter("name a picture or a folder.", param_hint="INPUT")

    def _check_apart(self, jobs: Sequence[Job]) -> None:
        """Refuse a comparison that has the name of another output; outputs differ already."""
        if not self.compares:
            return
        owners: dict[Path, Path] = {}
        for job in jobs:
            for path in job.outputs:
                if path in owners:
                    raise ImageError(
                        f"{job.source}: {path} would also be written for {owners[path]}; "
                        "rename one or run them apart"
                    )
                owners[path] = job.source

    @property
    def _is_many(self) -> bool:
        one = len(self.inputs) == 1 and self.files_from is None and self.inputs[0] != _LISTED
        return not one or self.inputs[0].is_dir() or not os.path.lexists(self.inputs[0])

    def _found(self) -> "list[Found]":
        from nsarm_cli.imaging.finding import Found, find_pictures

        avoid = Path(self.out) if self.out is not None and self._is_many else None
        named = [path for path in self.inputs if path != _LISTED]
        search = partial(
            find_pictures,
            recursive=self.recursive,
            avoid=avoid,
            hint="" if self.recursive else "-r looks into its folders",
        )
        found = search(named)
        known = {each.path for each in found}
        lists = [_LISTED] if _LISTED in self.inputs else []
        for path in [*lists, *([] if self.files_from is None else [self.files_from])]:
            for listed in map(Path, _read_list(path)):
                # If a file is missing, the others of the list still finish.
                more = search([listed]) if listed.is_dir() else [Found(listed)]
                found += [each for each in more if each.path not in known]
                known.update(each.path for each in more)
        return found

    def _names(self, found: "Sequence[Found]") -> list[Path]:
        from nsarm_cli.imaging.naming import output_paths

        suffix = self.suffix if self.suffix is not None else f"_{self.size.label(4)}"
        return output_paths(
            [each.path for each in found],
            self.out,
            self._is_many,
            suffix,
            self.format,
            folders=[each.folder for each in found],
            template=self.template,
            fields={"seed": self.seed},
        )

    def _without_outputs(self, found: "list[Found]") -> "list[Found]":
        """Leave out what an earlier run made, unless it was given by name."""
        from nsarm_cli.imaging.comparison import comparison_paths

        kept = [each for each in found if each.is_named or not each.is_output()]
        while True:
            targets = set(self._names(kept)) if kept else set()
            targets |= {path for target in targets for path in comparison_paths(target)}
            fewer = [each for each in kept if each.is_named or each.path not in targets]
            if len(fewer) == len(kept):
                break
            kept = fewer
        left_out = len(found) - len(kept)
        if left_out:
            console.say(
                f"{left_out} of {len(found)} pictures are outputs of nsarm: skipped; "
                "name one to enlarge it again"
            )
        return kept


def _is_one_of(path: Path, sources: Sequence[Path]) -> bool:
    return any(is_there(source) and path.samefile(source) for source in sources)


def _read_list(path: Path) -> list[str]:
    """Read names, one a line, or each ended by a zero byte as `find -print0` writes them."""
    try:
        data = sys.stdin.buffer.read() if path == _LISTED else path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path}: the list of pictures cannot be read ({error.strerror}); check the name"
        ) from error
    separator = b"\0" if b"\0" in data else b"\n"
    lines = (line.rstrip(b"\r") for line in data.split(separator))
    return [os.fsdecode(line) for line in lines if line.strip()]

"""Putting an evaluation together: sets, methods, measures and the model, and writing it down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsarm_cli import __version__
from nsarm_cli.cli import console, eval_model
from nsarm_cli.cli.eval_measures import load_fid_for, load_measures, require_values
from nsarm_cli.cli.eval_model import EvaluatedModel, Prompts, captioned
from nsarm_cli.cli.eval_sets import open_set
from nsarm_cli.cli.options import value_of
from nsarm_cli.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    import torch

    from nsarm_cli.evaluation.journal import Journal
    from nsarm_cli.evaluation.measures import Measure
    from nsarm_cli.evaluation.methods import Method
    from nsarm_cli.evaluation.pictures import PictureSet
    from nsarm_cli.evaluation.protocol import Protocol
    from nsarm_cli.evaluation.ranks import Ranks
    from nsarm_cli.evaluation.results import Report, SetReport
    from nsarm_cli.evaluation.robustness import Score
    from nsarm_cli.evaluation.runner import Rows, SetResult
    from nsarm_cli.evaluation.sweeps import Sweep, SweepResult

NO_MODEL = "none"
"""What `--model` says to evaluate only the outputs of others."""

_GPU_BATCH = 8  # pictures measured at once; on a processor one is as quick


@dataclass(frozen=True)
class Run:
    """One evaluation as it was asked for; see the options of `nsarm eval`."""

    sets: list[str]
    data_root: Path | None
    protocol: str
    model: str | None
    methods: dict[str, Path]
    measures: list[str] | None
    measure_weights: Path | None
    score: str | None
    out: Path
    limit: int | None
    shown: int
    overwrite: bool
    parquet: bool
    seed: int
    device: str
    precision: str
    threads: int | None
    prompts: Prompts = Prompts.FIXED
    captions: tuple[Path, ...] = ()
    speed: bool = False
    sweep: str | None = None

    @property
    def is_captioned(self) -> bool:
        """Whether the model runs under captions."""
        return self.prompts is not Prompts.FIXED

    def evaluate(self, ranks: "Ranks") -> "Report":
        """Measure everything, and write the report in the first process; all get it."""
        report, methods = self._measure(ranks)
        if ranks.is_first:
            self._write(report, methods)
        return report

    def _measure(self, ranks: "Ranks") -> "tuple[Report, list[list[Method]]]":
        """Measure everything; also gives the methods of each set."""
        from nsarm_cli.cli.eval_speed import measure_speed
        from nsarm_cli.evaluation.journal import Journal
        from nsarm_cli.evaluation.methods import BicubicMethod
        from nsarm_cli.evaluation.pyiqa_measures import fid_of_set
        from nsarm_cli.evaluation.results import Report, analyse
        from nsarm_cli.evaluation.robustness import choose_score
        from nsarm_cli.evaluation.sweeps import as_document, choose_sweeps

        # What can be refused is refused before anything is fetched or loaded.
        with value_of("--sweep"):
            sweeps = [] if self.sweep is None else choose_sweeps(self.sweep)
        captions = self.captions if self.is_captioned else None
        sets = [
            open_set(name, self.data_root, self.limit, self.protocol, captions, ranks)
            for name in self.sets
        ]
        self._check_names([picture_set.name for picture_set, _ in sets])
        device, dtype = self._choose_device()
        measures, missing = load_measures(self.measures, self.measure_weights, device)
        names = [m.name for m in measures]
        require_values([s for s, _ in sets], measures)
        scores = [choose_score(self.score, names, has_references=s.has_references) for s, _ in sets]
        if sweeps and None in scores:
            raise ConfigError(
                f"--sweep follows the mean score, but {', '.join(names)} makes none; add niqe, or "
                "lpips or dists with references"
            )
        others = [self._others(picture_set) for picture_set, _ in sets]
        # FID stands beside all other measures: not where some were chosen.
        is_whole = ranks.is_first and self.measures is None
        fid = load_fid_for([s for s, _ in sets], device, missing) if is_whole else None
        model = self._load([s for s, _ in sets], device, dtype, ranks)
        entries: list[SetReport] = []
        methods: list[list[Method]] = []
        swept: list[SweepResult] = []
        with Journal(self.out / "cache", ranks.rank) as journal:
            work = _Work(measures, journal, 1 if device.type == "cpu" else _GPU_BATCH, ranks)
            for (picture_set, protocol), other, score in zip(sets, others, scores, strict=True):
                ours = self._ours(model, picture_set, protocol, ranks)
                methods.append([*ours, BicubicMethod(), *other])
                result = work.of(picture_set, methods[-1], protocol)
                if fid is not None and ranks.is_first:
                    whole = fid_of_set(picture_set, methods[-1], protocol, fid)
                    result = replace(result, whole=whole)
                first = next(iter(result.rows)) if ours or not other else other[0].name
                entries.append(analyse(result, measures, score, first))
                if score is not None:  # without one there are no sweeps
                    entry = entries[-1]
                    swept += [self._sweep(sweep, entry, score, model, work) for sweep in sweeps]
        extra: dict[str, Any] = {}
        if swept:
            extra["sweeps"] = [as_document(result) for result in swept]
        if self.speed and model is not None and ranks.is_first:
            extra["speed"] = measure_speed(model, *sets[0], device)
        return Report(entries, measures, missing, self._facts(model, device), extra), methods

    def _ours(
        self, model: "EvaluatedModel | None", on: "PictureSet", protocol: "Protocol", ranks: "Ranks"
    ) -> "list[Method]":
        if model is None:
            return []
        return model.methods(on, protocol, self.out, ranks, overwrite=self.overwrite)

    def _sweep(
        self,
        sweep: "Sweep",
        entry: "SetReport",
        score: "Score",
        model: "EvaluatedModel | None",
        work: "_Work",
    ) -> "SweepResult":
        """Measure a set at each strength; methods that are folders, where they have outputs."""
        from nsarm_cli.evaluation.methods import BicubicMethod, FolderMethod
        from nsarm_cli.evaluation.sweeps import damaged, summarise_sweep

        picture_set, protocol = entry.result.picture_set, entry.result.protocol
        rows: list[Mapping[str, Rows]] = [entry.result.rows]
        for strength in sweep.strengths:
            make = partial(damaged, picture_set, sweep, strength, self.out / "sweeps")
            work.ranks.first_alone(make)
            inputs = make()
            others = [
                FolderMethod.find(name, folder, inputs)
                for name, folder in self.methods.items()
                if (folder / inputs.name).is_dir()
            ]
            ours = self._ours(model, inputs, protocol, work.ranks)
            rows.append(work.of(inputs, [*ours, BicubicMethod(), *others], protocol).rows)
        return summarise_sweep(picture_set.name, sweep, score, rows)

    def _write(self, report: "Report", methods: "list[list[Method]]") -> None:
        """Write the report's files."""
        from nsarm_cli.evaluation.cases import collect
        from nsarm_cli.evaluation.kept import write
        from nsarm_cli.evaluation.page import page
        from nsarm_cli.evaluation.results import as_csv, as_json, as_parquet, to_text

        table = as_parquet(report) if self.parquet else None
        cases = {
            entry.result.picture_set.name: collect(entry, of_set, self.shown)
            for entry, of_set in zip(report.sets, methods, strict=True)
        }
        write(page(report, cases), self.out / "report.html")
        write(to_text(as_json(report)), self.out / "results.json")
        write(as_csv(report), self.out / "images.csv")
        if table is not None:
            write(table, self.out / "images.parquet")
        console.say(f"report: {self.out / 'report.html'}")

    def _check_names(self, sets: Sequence[str]) -> None:
        if len(set(sets)) < len(sets):
            raise ConfigError("two sets have the same name; rename a folder or evaluate them apart")
        own = {"bicubic", self._model_name(), captioned(self._model_name())}
        if taken := own & self.methods.keys():
            raise ConfigError(
                f"method {taken.pop()!r} has the name of one that runs here; call it otherwise"
            )

    def _model_name(self) -> str:
        from nsarm_cli.pipeline import DEFAULT_MODEL

        path = Path(self.model or DEFAULT_MODEL)
        return path.resolve().name if path.is_dir() else str(path)

    def _choose_device(self) -> "tuple[torch.device, torch.dtype]":
        import torch

        from nsarm_cli.evaluation.ranks import local_device
        from nsarm_cli.runtime import choose_device, choose_dtype, keep_freed_memory

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device, _ = choose_device(local_device(self.device))
        if device.type == "cpu":
            keep_freed_memory()
        return device, choose_dtype(self.precision, device)[0]

    def _others(self, picture_set: "PictureSet") -> "list[Method]":
        from nsarm_cli.evaluation.methods import FolderMethod

        return [FolderMethod.find(n, folder, picture_set) for n, folder in self.methods.items()]

    def _load(
        self,
        sets: "Sequence[PictureSet]",
        device: "torch.device",
        dtype: "torch.dtype",
        ranks: "Ranks",
    ) -> "EvaluatedModel | None":
        """Load the model, alike in all processes, unless there is to be none."""
        from nsarm_cli.pipeline import DEFAULT_MODEL

        if self.model == NO_MODEL:
            for option, value in (("--speed", self.speed), ("--prompts", self.is_captioned)):
                if value:
                    raise ConfigError(f"{option} is about a model, but there is none; name one")
            return None
        model = eval_model.load(
            self.model or DEFAULT_MODEL,
            self._model_name(),
            device,
            dtype,
            seed=self.seed,
            prompts=self.prompts,
            captions=[item.caption or "" for s in sets for item in s.items],
        )
        if any(other != model.settings for other in ranks.gather(model.settings)):
            raise DeviceError(
                "the processes would run the model otherwise, quantised or not, since their GPUs "
                "differ or other programs use some of them; start processes on like GPUs only"
            )
        return model

    def _facts(self, model: "EvaluatedModel | None", device: "torch.device") -> dict[str, Any]:
        from dataclasses import asdict

        from nsarm_cli.benchmark.machine import Machine

        return {
            "nsarm": __version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(Machine.describe(device)),
            "model": None if model is None else model.settings,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class _Work:
    """What measuring needs, whatever the set."""

    measures: "Sequence[Measure]"
    journal: "Journal"
    batch: int
    ranks: "Ranks"

    def of(
        self, picture_set: "PictureSet", methods: "Sequence[Method]", protocol: "Protocol"
    ) -> "SetResult":
        """Measure the outputs of methods on a set, under a bar."""
        from nsarm_cli.evaluation.runner import evaluate

        pictures = -(-len(picture_set.items) * len(methods) // self.ranks.world)
        with console.progress_bar(pictures) as bar:
            places = count()

            def on_picture(label: str) -> None:
                bar.begin(next(places), label)

            return evaluate(
                picture_set,
                methods,
                self.measures,
                protocol,
                self.journal,
                batch=self.batch,
                ranks=self.ranks,
                on_picture=on_picture,
            )

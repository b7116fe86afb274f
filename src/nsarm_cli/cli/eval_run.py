"""Putting an evaluation together: sets, methods, measures and the model, and writing it down."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsarm_cli import __version__
from nsarm_cli.cli import console
from nsarm_cli.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from nsarm_cli.evaluation.measures import Measure, Missing
    from nsarm_cli.evaluation.methods import Method
    from nsarm_cli.evaluation.pictures import Item, PictureSet
    from nsarm_cli.evaluation.protocol import Protocol
    from nsarm_cli.evaluation.ranks import Ranks
    from nsarm_cli.evaluation.results import Report, SetReport
    from nsarm_cli.pipeline import Upscaler

NO_MODEL = "none"
"""What `--model` says to evaluate only the outputs of others."""

_LEARNED = ("lpips", "dists")
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

    def evaluate(self, ranks: "Ranks") -> "Report":
        """Measure everything, and write the report in the first process; all get it."""
        report, methods = self._measure(ranks)
        if ranks.is_first:
            self._write(report, methods)
        return report

    def _measure(self, ranks: "Ranks") -> "tuple[Report, list[list[Method]]]":
        """Measure everything; also gives the methods of each set."""
        from nsarm_cli.evaluation.journal import Journal
        from nsarm_cli.evaluation.methods import BicubicMethod
        from nsarm_cli.evaluation.results import Report, analyse
        from nsarm_cli.evaluation.robustness import choose_score
        from nsarm_cli.evaluation.runner import evaluate

        # What can be refused is refused before the model is loaded.
        sets = [self._open(name) for name in self.sets]
        self._check_names([picture_set.name for picture_set, _ in sets])
        device, dtype = self._choose_device()
        measures, missing = self._measures(device)
        names = [m.name for m in measures]
        scores = [choose_score(self.score, names, has_references=s.has_references) for s, _ in sets]
        others = [self._others(picture_set) for picture_set, _ in sets]
        model = self._load(device, dtype)
        entries: list[SetReport] = []
        methods: list[list[Method]] = []
        pictures = sum(
            len(s.items) * (len(o) + 1 + (model is not None))
            for (s, _), o in zip(sets, others, strict=True)
        )
        with (
            Journal(self.out / "cache", ranks.rank) as journal,
            console.progress_bar(-(-pictures // ranks.world)) as bar,
        ):
            done = 0

            def on_picture(label: str) -> None:
                nonlocal done
                bar.begin(done, label)
                done += 1

            for (picture_set, protocol), other, score in zip(sets, others, scores, strict=True):
                ours = [] if model is None else [model.method(picture_set, protocol, self)]
                methods.append([*ours, BicubicMethod(), *other])
                result = evaluate(
                    picture_set,
                    methods[-1],
                    measures,
                    protocol,
                    journal,
                    batch=1 if device.type == "cpu" else _GPU_BATCH,
                    ranks=ranks,
                    on_picture=on_picture,
                )
                first = next(iter(result.rows)) if ours or not other else other[0].name
                entries.append(analyse(result, measures, score, first))
        return Report(entries, measures, missing, self._facts(model, device)), methods

    def _write(self, report: "Report", methods: "list[list[Method]]") -> None:
        """Write the report's files."""
        from nsarm_cli.evaluation.cases import collect
        from nsarm_cli.evaluation.page import page
        from nsarm_cli.evaluation.results import as_csv, as_json, as_parquet, to_text, write

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

    def _open(self, name: str) -> "tuple[PictureSet, Protocol]":
        """Find a set by its name or path, with the protocol that it is evaluated under."""
        from nsarm_cli.evaluation.datasets import find_dataset, open_dataset
        from nsarm_cli.evaluation.pictures import find_set
        from nsarm_cli.evaluation.protocol import Protocol
        from nsarm_cli.weights.store import Store

        known = find_dataset(name)
        if known is not None:
            root = self.data_root or Store().root / "datasets"
            if not root.is_dir():
                raise ConfigError(
                    f"{root}: there are no sets of pictures there; name the folder that has "
                    f"{known.name} with --data-root"
                )
            picture_set, protocol = open_dataset(known, root, self.limit), Protocol.PAPER
        else:
            picture_set, protocol = find_set(Path(name)).first(self.limit), Protocol.NATIVE
        return picture_set, protocol if self.protocol == "auto" else Protocol(self.protocol)

    def _check_names(self, sets: Sequence[str]) -> None:
        if len(set(sets)) < len(sets):
            raise ConfigError("two sets have the same name; rename a folder or evaluate them apart")
        own = {"bicubic", self._model_name()}
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
        from nsarm_cli.runtime import choose_device, choose_dtype

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device, _ = choose_device(local_device(self.device))
        return device, choose_dtype(self.precision, device)[0]

    def _measures(self, device: "torch.device") -> "tuple[list[Measure], list[Missing]]":
        """Load the measures; those that are missing are told about."""
        from nsarm_cli.evaluation.measures import choose, learned_measures, own_measures
        from nsarm_cli.weights.store import Store

        folder = self.measure_weights or Store().root / "measures"
        learned, missing = learned_measures(_LEARNED, folder, device)
        own = {m.name: m for m in [*own_measures(), *learned]}
        order = ("psnr_y", "ssim_y", "lpips", "dists", "niqe", "lr_psnr", "color_shift")
        available = [own[name] for name in order if name in own]
        chosen = choose(available, missing, self.measures)
        if self.measures is not None:
            return chosen, []
        for entry in missing:
            console.say(f"{entry.name} is left out: {entry.reason}")
        return chosen, missing

    def _others(self, picture_set: "PictureSet") -> "list[Method]":
        from nsarm_cli.evaluation.methods import FolderMethod

        return [FolderMethod.find(n, folder, picture_set) for n, folder in self.methods.items()]

    def _load(self, device: "torch.device", dtype: "torch.dtype") -> "_Model | None":
        """Load the model, unless there is to be none."""
        from nsarm_cli.pipeline import DEFAULT_MODEL, Upscaler
        from nsarm_cli.weights.families import load_resolver

        if self.model == NO_MODEL:
            return None
        name = self.model or DEFAULT_MODEL
        precision = str(dtype).removeprefix("torch.")
        upscaler = Upscaler(load_resolver(name, device, dtype), device)
        settings = {
            "model": name,
            "weights": _weights_digest(name),
            "precision": precision,
            "seed": self.seed,
            "sampling": str(upscaler.sampling),
        }
        return _Model(self._model_name(), upscaler, settings)

    def _facts(self, model: "_Model | None", device: "torch.device") -> dict[str, Any]:
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
class _Model:
    """A model that runs here, with all that its outputs depend on."""

    name: str
    upscaler: "Upscaler"
    settings: dict[str, Any]

    def method(self, picture_set: "PictureSet", protocol: "Protocol", run: Run) -> "Method":
        """Make it a method, whose outputs are kept in a folder of the run."""
        from nsarm_cli.evaluation.methods import ModelMethod, prepare

        folder = run.out / "outputs" / f"{picture_set.name}-{protocol.value}" / self.name
        prepare(folder, self.settings, overwrite=run.overwrite)

        def enlarge(image: "Image.Image", _: "Item") -> "Image.Image":
            return self.upscaler.upscale(image, seed=run.seed)

        return ModelMethod(self.name, f"model {self.settings['model']}", folder, enlarge)


def _weights_digest(model: str) -> str:
    """Name the weights that outputs were made with: a digest of the model's files."""
    from nsarm_cli.weights.catalog import find_model
    from nsarm_cli.weights.store import Store

    folder = Path(model)
    found = folder if folder.is_dir() else Store().runnable(find_model(model))
    digest = hashlib.sha256()
    for path in sorted((found or folder).glob("*")):
        if path.suffix in (".json", ".safetensors"):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

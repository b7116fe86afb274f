"""The batches of a run: from its settings and its pictures to what a step takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from nsarm_cli.degradation.recipe import RECIPES, Degradation
from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.schedule import Grid
from nsarm_cli.training.config import BitsConfig, RunConfig
from nsarm_cli.training.data import Batch, Batches, Framing, Poor
from nsarm_cli.training.listing import SUFFIXES, files_of, list_pictures
from nsarm_cli.training.loading import loader
from nsarm_cli.training.order import Order, ShuffledOrder
from nsarm_cli.training.patterns import find_sources
from nsarm_cli.training.photos import PhotoStore
from nsarm_cli.training.spool import Spool
from nsarm_cli.training.stream import StreamedOrder
from nsarm_cli.training.templates import crop_size
from nsarm_cli.weights.folder import AnyConfig

_VALIDATION_SEED = 1_000_003

BatchesFrom = Callable[[int], Iterator[Batch]]
"""Called with a step; gives the batches from there on."""


def check_data(data: Sequence[str]) -> None:
    """Refuse data in which there are no pictures, by a look at names until the first is found.

    Raises:
        ConfigError: as of `listing.list_pictures`; what is wrong with files may be told later.
    """
    paths = find_sources(data).paths
    if not all(any(map(_may_be_listed, _files(path))) for path in paths):
        list_pictures(paths)


def _files(path: Path) -> Iterable[Path]:
    return files_of(path) if path.is_dir() else [path]


def _may_be_listed(path: Path) -> bool:
    return path.suffix.lower() in (*SUFFIXES, ".jsonl", ".tar")


def training_batches(
    config: RunConfig,
    model: AnyConfig,
    data: Sequence[str],
    device: torch.device,
    part: tuple[int, int] | None = None,
    *,
    poor: Sequence[str] = (),
) -> BatchesFrom:
    """The batches to train on, degraded, and on the device where that is a GPU.

    Args:
        config: of the run.
        model: configuration of the model.
        data: see `patterns.find_sources` and `listing.list_pictures`.
        device: where the run computes.
        part: first sample and number of samples of this process in each batch.
        poor: the same as `data` for pictures of poor quality, where the stage learns from them.

    Raises:
        ConfigError: the data or the settings are wrong.
    """
    sizes = {ratio: crop_size(model, ratio, config.crop) for ratio in config.templates}
    if config.poor_share > 0 and not poor:
        raise ConfigError(
            f"negatives is {config.poor_share:g}, but there are no pictures of poor quality; give "
            "them with --negatives, or set negatives = 0"
        )
    if poor and config.poor_share == 0:
        raise ConfigError(
            "--negatives is given, but negatives is 0 in the settings; set the share of a batch "
            "that these pictures have, or leave them out"
        )

    def order_of(words: Sequence[str]) -> Order:
        ratios = list(sizes)
        return _order(config, words, part=part, steps=config.steps, seed=config.seed, ratios=ratios)

    recipe, in_workers = _recipes(config, device)
    framing = _framing(config, sizes, config.shrink, in_workers)
    # What is poor at its own size is not reduced any further than the crop needs.
    others = Poor(order_of(poor), replace(framing, margin=1.0), config.poor_share) if poor else None
    batches = Batches(
        order_of(data), framing, config.batch, config.seed, config.steps, part=part, poor=others
    )
    return lambda step: _on_device(
        loader(batches, step, config.workers, config.corrupt), device, recipe
    )


def validation_batches(
    config: RunConfig,
    model: AnyConfig,
    data: Sequence[str],
    device: torch.device,
    part: tuple[int, int] | None = None,
) -> Callable[[], Iterator[Batch]] | None:
    """The fixed batches to validate on, always the same and square; None without data.

    Raises:
        ConfigError: the data or the settings are wrong.
    """
    if not data:
        return None
    length = config.validate_batches
    order = _order(config, data, part=part, steps=length, seed=_VALIDATION_SEED, ratios=[1.0])
    recipe, in_workers = _recipes(config, device)
    framing = _framing(config, {1.0: crop_size(model, 1.0, config.crop)}, 1.0, in_workers)
    batches = Batches(order, framing, config.batch, _VALIDATION_SEED, length, part=part)
    return lambda: _on_device(loader(batches, 0, 0, config.corrupt), device, recipe)


def _framing(
    config: RunConfig, sizes: Mapping[float, Grid], shrink: float, recipe: Degradation | None
) -> Framing:
    return Framing(
        dict(sizes),
        shrink,
        config.framing,
        config.margin,
        config.turns,
        recipe,
        config.reads_captions,
        config.short_captions if isinstance(config, BitsConfig) else 0.0,
    )


def _order(
    config: RunConfig,
    data: Sequence[str],
    *,
    part: tuple[int, int] | None,
    steps: int,
    seed: int,
    ratios: Sequence[float],
) -> Order:
    sources = find_sources(data)
    if not sources.streams:
        photos = PhotoStore(sources.paths, most_faults=config.corrupt)
        return ShuffledOrder(photos, config.batch, steps, seed, ratios)
    return StreamedOrder(
        sources.streams,
        Spool(),
        part=part or (0, config.batch),
        per_shard=config.per_shard,
        batch=config.batch,
        seed=seed,
        ratios=ratios,
    )


def _recipes(
    config: RunConfig, device: torch.device
) -> tuple[Degradation | None, Degradation | None]:
    """The recipe for the device, or else for the workers, which are processors themselves."""
    if not config.degrades:
        return None, None
    if config.degradation not in RECIPES:
        known = ", ".join(RECIPES)
        raise ConfigError(f'degradation is "{config.degradation}"; choose one of {known}')
    recipe = RECIPES[config.degradation]
    return (None, recipe) if device.type == "cpu" else (recipe, None)


def _on_device(
    batches: Iterator[Batch], device: torch.device, recipe: Degradation | None
) -> Iterator[Batch]:
    for batch in batches:
        moved = batch.to(device)
        yield moved if recipe is None else moved.degraded(recipe)

"""Encode all captions of a data set once, so that training needs no text encoder.

The features lie in safetensors shards, bf16, each under the SHA-256 of its text: a caption that
many pictures share is encoded once, and a command that was stopped goes on where it was.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.training.captions import Encoder, StoredFeatures, key_of
from nsarm_cli.training.checkpoint import save_atomically
from nsarm_cli.training.listing import list_pictures, list_shard
from nsarm_cli.training.patterns import Sources, find_sources
from nsarm_cli.training.records import Record
from nsarm_cli.training.spool import Spool

PER_SHARD = 512
"""Texts in a file: about 170 MB for captions of 80 tokens of width 2,048."""

TOGETHER = 32
"""Texts encoded in one go."""

_log = logging.getLogger(__name__)


def encode_captions(
    sources: Sources,
    encoder: Encoder,
    out: Path,
    prompt: str,
    *,
    short: bool = False,
    progress: Callable[[int], None] = lambda _done: None,
) -> tuple[int, int]:
    """Encode the captions of all pictures, and the prompt of those without any.

    What was encoded when the command is stopped is kept, and passed over the next time.

    Args:
        sources: where the pictures are; only their captions are read.
        encoder: of texts.
        out: folder of the shards; those in it are added to.
        prompt: what a picture without a caption is given in training.
        short: also encode the short caption of a picture that has a long one.
        progress: called with the number of texts encoded.

    Returns:
        The number of texts encoded now, and of those that were there already.

    Raises:
        ConfigError: the pictures cannot be listed, a shard cannot be written, the folder has
            features of another width, or another process adds to it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            return _encode(sources, encoder, out, prompt, short=short, progress=progress)
    except Timeout as error:
        raise ConfigError(
            f"{out}: another process adds features; wait for it or give another --out folder"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written ({error.strerror}); choose another --out folder"
        ) from error


def check_encoded(
    stored: StoredFeatures, prompt: str, data: Mapping[str, Sequence[str]], *, short: bool
) -> None:
    """Refuse, before a run begins, features that lack what it will ask for.

    Shards from elsewhere are not read for it.

    Args:
        stored: the features.
        prompt: what a picture without a caption is given.
        data: by the option that names them, pictures as `patterns.find_sources` takes them.
        short: whether short captions may be asked for.

    Raises:
        ConfigError: a text was not encoded, or the pictures cannot be listed.
    """
    more = " --short" if short else ""
    if prompt not in stored:
        raise ConfigError(
            f"{stored.folder}: has no features of the prompt {prompt[:40]!r}; run nsarm train "
            "features again with it as --prompt"
        )
    for option, words in data.items():
        sources = find_sources(words)
        for record in [] if sources.streams else list_pictures(sources.paths).records:
            for text in _texts_of(record, short=short):
                if text not in stored:
                    raise ConfigError(
                        f"{stored.folder}: has no features of the caption {text[:40]!r} of "
                        f"{record.name}; run nsarm train features again with the pictures of "
                        f"{option} as --data{more}"
                    )


def _encode(
    sources: Sources,
    encoder: Encoder,
    out: Path,
    prompt: str,
    *,
    short: bool,
    progress: Callable[[int], None],
) -> tuple[int, int]:
    stored = _stored(out, encoder)
    shard = _Shard(out)
    seen: set[str] = set()
    waiting: list[str] = []
    made = kept = 0

    def flush() -> None:
        nonlocal made
        shard.add(waiting, encoder.encode(waiting) if waiting else [])
        made += len(waiting)
        waiting.clear()
        progress(made)

    try:
        for text in _texts(sources, prompt, short=short):
            key = key_of(text)
            if key in seen:
                continue
            seen.add(key)
            if stored is not None and text in stored:
                kept += 1
                continue
            waiting.append(text)
            if len(waiting) == TOGETHER:
                flush()
        flush()
    finally:
        shard.write()
    return made, kept


class _Shard:
    """The shard in the making, and after it the next."""

    def __init__(self, out: Path) -> None:
        self._out = out
        there = sorted(out.glob("features-*.safetensors"))
        self._number = int(there[-1].stem.rpartition("-")[2]) + 1 if there else 0
        self._features: dict[str, Tensor] = {}

    def add(self, texts: list[str], features: list[Tensor]) -> None:
        for text, own in zip(texts, features, strict=True):
            self._features[key_of(text)] = own.bfloat16()
        if len(self._features) >= PER_SHARD:
            self.write()

    def write(self) -> None:
        if self._features:
            features, self._features = self._features, {}
            path = self._out / f"features-{self._number:05d}.safetensors"
            save_atomically(features, path, {"format": "pt"})
            self._number += 1


def _stored(out: Path, encoder: Encoder) -> StoredFeatures | None:
    if not any(out.glob("features-*.safetensors")):
        return None
    stored = StoredFeatures(out)
    if stored.width != encoder.width:
        raise ConfigError(
            f"{out}: has features of width {stored.width} and this encoder makes "
            f"{encoder.width}; give another --out folder"
        )
    return stored


def _texts(sources: Sources, prompt: str, *, short: bool) -> Iterator[str]:
    """What training may ask for."""
    yield prompt
    for record in _records(sources):
        yield from _texts_of(record, short=short)


def _texts_of(record: Record, *, short: bool) -> Iterator[str]:
    try:
        captions = record.captions()
    except ImageError as error:
        _log.warning("left out: %s", error)
        return
    if captions.long or captions.short:
        yield captions.long or captions.short
    if short and captions.short:
        yield captions.short


def _records(sources: Sources) -> Iterator[Record]:
    if not sources.streams:
        listing = list_pictures(sources.paths)
        for fault in listing.faults:
            _log.warning("left out: %s", fault)
        yield from listing.records
        return
    spool = Spool()
    for shard in sources.streams:
        try:
            path = spool.get(shard)
        except ImageError as error:
            _log.warning("left out: %s", error)
            continue
        try:
            yield from list_shard(path)
        except ConfigError as error:
            _log.warning("left out: %s", error)

"""The model of an evaluation, and the prompts that it runs under."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsarm_cli.cli.memory_options import MemoryOptions, OffloadChoice, QuantizeChoice
from nsarm_cli.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from nsarm_cli.evaluation.methods import Method
    from nsarm_cli.evaluation.pictures import Item, PictureSet
    from nsarm_cli.evaluation.protocol import Protocol
    from nsarm_cli.evaluation.ranks import Ranks
    from nsarm_cli.memory.relief import Relief
    from nsarm_cli.memory.session import Session
    from nsarm_cli.pipeline import Upscaler


class Prompts(StrEnum):
    """Choices of `--prompts` (Table 3 of NSARM's paper).

    FIXED: the prompt that the model was tuned for.
    CAPTIONS: what each picture shows.
    BOTH: each in turn, as two methods.
    """

    FIXED = "fixed"
    CAPTIONS = "captions"
    BOTH = "both"


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that runs here, with all that its outputs depend on.

    Attributes:
        name: in tables.
        upscaler: runs it.
        seed: of every picture.
        settings: for the report, and to tell outputs of other settings apart.
        prompts: that it runs under.
        features: encoded captions by their text.
    """

    name: str
    upscaler: "Upscaler"
    seed: int
    settings: dict[str, Any]
    prompts: Prompts = Prompts.FIXED
    features: "Mapping[str, Tensor]" = field(default_factory=dict)

    def methods(
        self,
        picture_set: "PictureSet",
        protocol: "Protocol",
        out: Path,
        ranks: "Ranks",
        *,
        overwrite: bool,
    ) -> "list[Method]":
        """Make it a method for each kind of prompt, whose outputs are kept below a folder.

        The first process prepares the folder while the others wait.

        Raises:
            ConfigError: the folder has outputs of other settings.
            ImageError: the folder cannot be written.
        """
        from nsarm_cli.evaluation.methods import ModelMethod, prepare

        found: list[Method] = []
        root = out / "outputs" / f"{picture_set.name}-{protocol.value}"
        note = f"model {self.settings['model']}"
        if self.prompts is not Prompts.CAPTIONS:
            folder, settings = root / self.name, self.settings
            ranks.first_alone(partial(prepare, folder, settings, overwrite=overwrite))
            found.append(ModelMethod(self.name, note, folder, self._enlarge))
        if self.prompts is not Prompts.FIXED:
            name = captioned(self.name)
            captions = sorted((item.name, item.caption) for item in picture_set.items)
            digest = hashlib.sha256(json.dumps(captions).encode()).hexdigest()
            folder, settings = root / name, self.settings | {"captions": digest}
            ranks.first_alone(partial(prepare, folder, settings, overwrite=overwrite))
            note += ", under the caption of each picture"
            found.append(ModelMethod(name, note, folder, self._enlarge_captioned))
        return found

    def _enlarge(self, image: "Image.Image", _: "Item") -> "Image.Image":
        return self.upscaler.upscale(image, seed=self.seed)

    def _enlarge_captioned(self, image: "Image.Image", item: "Item") -> "Image.Image":
        prompt = self.features[item.caption or ""]
        return self.upscaler.upscale(image, seed=self.seed, prompt=prompt)


def captioned(name: str) -> str:
    """Name a model under captions."""
    return f"{name}-captions"


def load(
    model: str,
    name: str,
    device: "torch.device",
    dtype: "torch.dtype",
    *,
    seed: int,
    prompts: Prompts,
    captions: Sequence[str],
) -> EvaluatedModel:
    """Load a model, after what reads captions has left the memory again.

    Args:
        model: its name or folder.
        name: in tables.
        device: where it runs.
        dtype: of its weights.
        seed: of every picture.
        prompts: that it runs under.
        captions: of all pictures; not looked at where the prompt is fixed.

    Raises:
        ConfigError: there are captions and the model takes no text.
        WeightsError: the model, or its text encoder, is missing or damaged.
        DeviceError: the device has no room for it.
    """
    from nsarm_cli.memory.settings import Quantize
    from nsarm_cli.weights.families import load_text_encoder, text_width

    features: dict[str, Tensor] = {}
    if prompts is not Prompts.FIXED:
        if text_width(model) is None:
            raise ConfigError(f"model {model} takes no text; leave --prompts out")
        distinct = sorted(set(captions))
        encoder = load_text_encoder(model, device, dtype)
        features = {text: encoder.encode([text])[0] for text in distinct}
        del encoder
    # Planned only now that the text encoder has left the memory.
    room = MemoryOptions(OffloadChoice.AUTO, QuantizeChoice.AUTO, None, None)
    session = room.session(model, device, dtype)
    room.announce(session)
    upscaler = _load_steadily(session)
    settings = {
        "model": model,
        "weights": weights_digest(model),
        "precision": str(dtype).removeprefix("torch."),
        "seed": seed,
        "sampling": str(upscaler.sampling),
    }
    if (quantize := session.settings.quantize) is not Quantize.NONE:  # offloading changes nothing
        settings["quantize"] = str(quantize)
    return EvaluatedModel(name, upscaler, seed, settings, prompts, features)


@dataclass
class _Steady:
    """A relief that no longer quantises once the first picture is begun.

    All outputs of an evaluation thus come from the same numbers; see `retry.Relief`.
    """

    relief: "Relief"
    keeps_numbers: bool = False

    def ease(self, *, may_change: bool) -> bool:
        return self.relief.ease(may_change=may_change and not self.keeps_numbers)


def _load_steadily(session: "Session") -> "Upscaler":
    """Load the model of a session so that its numbers stay as they are from now on."""
    from PIL import Image

    from nsarm_cli.pipeline import Upscaler

    resolver, relief = session.load()
    batch = session.settings.batch
    if relief is None:
        return Upscaler(resolver, session.device, batch=batch)
    steady = _Steady(relief)
    upscaler = Upscaler(resolver, session.device, batch=batch, relief=steady)
    if _may_be_full(session.device):  # what one window needs beyond the plan shows here
        upscaler.upscale(Image.new("RGB", (upscaler.window, upscaler.window)), seed=0)
    steady.keeps_numbers = True
    return upscaler


def _may_be_full(device: "torch.device") -> bool:
    """Whether to try one window first: a processor takes long, and seldom refuses memory."""
    return device.type == "cuda"


def find_captions(picture_set: "PictureSet", places: Sequence[Path]) -> "PictureSet":
    """Give the pictures of a set their captions.

    Args:
        picture_set: may have them already, from its manifest.
        places: files of captions, and folders that have NAME.jsonl or NAME_256.jsonl, as those
            of NSARM's authors are called.

    Raises:
        ConfigError: no place has them, or one picture has none.
    """
    from nsarm_cli.evaluation.pictures import read_captions, with_captions

    candidates: list[Path] = []
    for place in places:
        names = (f"{picture_set.name}.jsonl", f"{picture_set.name}_256.jsonl")
        candidates += [place / name for name in names] if place.is_dir() else [place]
    for path in candidates:
        if path.is_file():
            return with_captions(picture_set, read_captions(path))
    if all(item.caption is not None for item in picture_set.items):
        return picture_set
    raise ConfigError(
        f"{picture_set.name}: its pictures have no captions; name the file of them, or a folder "
        f"that has {picture_set.name}.jsonl, with --captions"
    )


def weights_digest(model: str) -> str:
    """Name the weights that outputs were made with: a digest of the model's files.

    Raises:
        WeightsError: there is no such model here.
    """
    from nsarm_cli.weights.locate import locate

    digest = hashlib.sha256()
    for path in sorted(locate(model).glob("*")):
        if path.suffix in (".json", ".safetensors"):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

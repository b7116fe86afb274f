"""Captions as the transformer's condition: encoded on the way, or beforehand into shards.

Letters: m tokens of a caption, x width of a token.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Generator, Tensor

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.nsarm.conditioner import ConstantConditioner
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver
from nsarm_cli.training.data import Batch


class Encoder(Protocol):
    """Turns texts into features."""

    @property
    def width(self) -> int:
        """Numbers (x) per token."""
        ...

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """For each text "m x"."""
        ...


class StoredFeatures:
    """Features that `nsarm train features` wrote.

    Args:
        folder: with the shards.

    Raises:
        ConfigError: the folder has no shards, or one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, Path] = {}
        self.width = 0
        for path in sorted(folder.glob("features-*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    keys = list(file.keys())
                    self._where |= dict.fromkeys(keys, path)
                    self.width = file.get_slice(keys[0]).get_shape()[1]
            except (OSError, SafetensorError, IndexError) as error:
                raise ConfigError(
                    f"{path}: is damaged ({error}); remove it and run nsarm train features again"
                ) from error
        if not self._where:
            raise ConfigError(f"{folder}: has no features; make them with nsarm train features")

    def __contains__(self, text: str) -> bool:
        return key_of(text) in self._where

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Read the features of texts, "m x" each.

        Raises:
            ConfigError: a text was not encoded.
        """
        found = []
        for text in prompts:
            path = self._where.get(key_of(text))
            if path is None:
                raise ConfigError(
                    f"{self.folder}: has no features of the caption {text[:40]!r}; "
                    "run nsarm train features again with its picture in --data"
                )
            with safe_open(path, framework="pt") as file:
                found.append(file.get_tensor(key_of(text)).float())
        return found


def key_of(text: str) -> str:
    """Name of a text's features in a shard."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Conditions:
    """The condition of a batch: its captions, some of them dropped, or what stands for none.

    Args:
        model: whose condition it is.
        encoder: of captions; None where the model has no text, or is trained without.
        drop: probability that a caption is replaced by the learned unconditional one, cut to
            its length, as guidance needs it.
        prompt: what a picture without a caption is given.

    Raises:
        ConfigError: the model and the encoder do not fit.
    """

    def __init__(
        self, model: NsarmModel, encoder: Encoder | None, drop: float, prompt: str
    ) -> None:
        self._model = model
        self._conditioner = model.conditioner
        self._encoder = encoder
        self._drop = drop
        self._prompt = prompt
        if encoder is None:
            return
        if isinstance(model.conditioner, ConstantConditioner):
            raise ConfigError(
                f"{model.config.name} has no text; leave text_encoder and features empty"
            )
        if encoder.width != model.config.text_width:
            raise ConfigError(
                f"the text features have {encoder.width} numbers per token and "
                f"{model.config.name} takes {model.config.text_width}; give those it was made for"
            )

    def of(self, batch: Batch, generators: Sequence[Generator] | None) -> Condition:
        """The condition of a batch.

        Args:
            batch: with captions, if there is an encoder.
            generators: of dropping, one per sample; None drops nothing.
        """
        conditioner = self._conditioner
        if isinstance(conditioner, ConstantConditioner):
            return conditioner(len(batch.hr))  # type: ignore[no-any-return]
        if self._encoder is None or batch.captions is None:
            return conditioner([conditioner.unconditional] * len(batch.hr))  # type: ignore[no-any-return]
        texts = [caption or self._prompt for caption in batch.captions]
        # Cloned: what was made in inference mode may not take part in a backward pass.
        features = [f.clone().to(batch.hr.device) for f in self._encoder.encode(texts)]
        empty = conditioner.unconditional_like(features)
        if generators is not None:
            dropped = [float(torch.rand((), generator=rng)) < self._drop for rng in generators]
            pairs = zip(features, empty, dropped, strict=True)
            features = [none if drop else own for own, none, drop in pairs]
        return conditioner(features)  # type: ignore[no-any-return]

    def resolver(self) -> NsarmResolver:
        """Samples under the prompt, or as `resolver_of` does where there is no encoder."""
        if self._encoder is None:
            return resolver_of(self._model)
        features = self._encoder.encode([self._prompt])[0].clone()
        return NsarmTextResolver(self._model, features.to(self._model.transformer.start.device))


def resolver_of(model: NsarmModel) -> NsarmResolver:
    """Samples without a prompt: a model with text under its unconditional caption."""
    if isinstance(model.conditioner, ConstantConditioner):
        return NsarmResolver(model)
    return NsarmTextResolver(model, model.conditioner.unconditional.detach())

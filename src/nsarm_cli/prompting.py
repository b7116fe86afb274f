"""Prompts of a picture, as text or as features, and the encoder that the first text loads."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from nsarm_cli.models.interface import SuperResolver, TakesText, Text
from nsarm_cli.passes import under


class PromptEncoder(Protocol):
    """Turns prompts into features; `text.encoder.TextEncoder` is one."""

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Features "m x" of each prompt: m tokens of width x."""
        ...


class Prompts:
    """What a model hears.

    Args:
        resolver: the model.
        load_encoder: loads what reads prompts; called when the first prompt is text.
    """

    def __init__(
        self, resolver: SuperResolver, load_encoder: Callable[[], PromptEncoder] | None
    ) -> None:
        self._resolver = resolver
        self._load_encoder = load_encoder
        self._encoder: PromptEncoder | None = None

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Encode prompts with the model's own encoder; see `Upscaler.encode`."""
        if self._load_encoder is None or not isinstance(self._resolver, TakesText):
            raise ValueError("this model takes no text")
        if self._encoder is None:
            self._encoder = self._load_encoder()
        return self._encoder.encode(prompts)

    def text(self, prompt: str | Tensor | None, negative: str | Tensor | None) -> Text | None:
        """Encode what is not encoded yet; None when there are no prompts.

        Raises:
            WeightsError: a prompt is text, and the text encoder is missing or damaged.
            ValueError: the model takes no text, or features of another width.
        """
        if prompt is None and negative is None:
            return None
        texts = [text for text in (prompt, negative) if isinstance(text, str)]
        encoded = iter(self.encode(texts) if texts else [])
        text = Text(
            *(next(encoded) if isinstance(text, str) else text for text in (prompt, negative))
        )
        under(self._resolver, text)  # refused here, not when the first rows are taken
        return text

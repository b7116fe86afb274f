"""What the pipeline may ask of any model family.

Letters: b batch, h w pixels of a low-resolution window, m tokens of a prompt, x width of one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

OnScale = Callable[[int, int], None]
"""Called as `on_scale(done, total)` after each pass of the scale loop."""

Trace = dict[str, Tensor]
"""Tensors recorded by name while a window is resolved (for `--trace`)."""

DECODED_SIDE = 64
"""Latents per side that a `JoinsLatents` is given to decode at once: 1024 pixels with 16 pixels
in a latent."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likelier value (greedy).
        top_p: in (0, 1]; the unlikely tail beyond this probability is removed; 1 keeps all.
        guidance: weight of the conditional branch, one number or one per scale; 1 is off.
        guidance_layer: 0 mixes the logits; -n mixes the hidden state after block depth-n.
        refiner_steps: steps of a refiner after the last scale, at least 2; 0 leaves it out,
            as does a family that has none.
    """

    temperature: float = 0.5
    top_p: float = 0.97
    guidance: float | tuple[float, ...] = 1.0
    guidance_layer: int = 0
    refiner_steps: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.guidance_layer > 0:
            raise ValueError(f"guidance_layer must be 0 or negative, got {self.guidance_layer}")
        if self.refiner_steps < 0 or self.refiner_steps == 1:
            raise ValueError(f"refiner_steps must be 0 or at least 2, got {self.refiner_steps}")


class SuperResolver(Protocol):
    """A loaded model that enlarges square windows."""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel, per side."""
        ...

    @property
    def window(self) -> int:
        """Side, in input pixels, of the square window the model accepts."""
        ...

    @property
    def overlap(self) -> int:
        """Fewest input pixels that neighbouring windows should share."""
        ...

    @property
    def sampling(self) -> Sampling:
        """The settings this model was tuned for."""
        ...

    @property
    def color(self) -> str:
        """The colour correction this model was tuned for; a name of `imaging.color`."""
        ...

    def resolve(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Enlarge a batch of windows.

        Args:
            lr: "b 3 window window", float32 in [-1, 1], on the model's device.
            generators: one CPU generator per window, so a window's result does not
                depend on which others share its batch.
            sampling: temperature, top-p, guidance.
            on_scale: progress.
            trace: when given, filled with the tensors of the first window.

        Returns:
            "b 3 (scale window) (scale window)", float32 in [-1, 1].
        """
        ...


@runtime_checkable
class JoinsLatents(SuperResolver, Protocol):
    """A model whose windows are joined as latents, which one decode turns into the picture."""

    @property
    def pixels_per_latent(self) -> int:
        """Input pixels that one latent covers, per side."""
        ...

    @property
    def latent_weights(self) -> Tensor:
        """How much each latent of a window counts, "p p", above 0; sums need not be 1."""
        ...

    def features(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Latents "b d p p", float32, of windows; the arguments are those of `resolve`."""
        ...

    def decode(self, feature: Tensor) -> Tensor:
        """Picture "b 3 h w" in [-1, 1], float32, of latents "b d ..." of any size."""
        ...


@runtime_checkable
class TakesGuidance(SuperResolver, Protocol):
    """A model with a second, unconditional branch that `Sampling.guidance` pushes away from."""

    @property
    def scales(self) -> int:
        """Number of scales, which may each have a guidance weight of its own."""
        ...


@dataclass(frozen=True)
class Text:
    """Encoded prompts for a model that takes text.

    Attributes:
        prompt: features "m x"; None keeps the prompt that the model has.
        negative: features "m x" of what guidance pushes away from; None keeps what the model
            has, at first the unconditional caption that it learned.
    """

    prompt: Tensor | None = None
    negative: Tensor | None = None


@runtime_checkable
class TakesText(TakesGuidance, Protocol):
    """A model that a prompt can steer."""

    @property
    def text_width(self) -> int:
        """x, the width of a prompt's features."""
        ...

    def with_text(self, text: Text) -> SuperResolver:
        """The same model under other prompts."""
        ...

"""NSARM as a `SuperResolver`: a low-resolution window in, a picture four times larger out.

Letters: b windows, h w pixels, m tokens of a prompt, x width of one.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from nsarm_cli.models.core.condition import Condition, PreparedCondition
from nsarm_cli.models.core.generate import Guidance, generate
from nsarm_cli.models.core.parts import in_parts
from nsarm_cli.models.core.transformer import NextScaleTransformer
from nsarm_cli.models.interface import OnScale, Sampling, Text, Trace
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.codec import BitCodec
from nsarm_cli.models.nsarm.conditioner import ConstantConditioner, TextConditioner
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel


class NsarmResolver:
    """Runs a model without text window by window.

    Args:
        model: with weights, in inference mode.
    """

    def __init__(self, model: NsarmModel) -> None:
        self._check(model)
        self.model = model
        self._schedule = model.config.schedule
        self._pyramid = model.pyramid
        self._codec = BitCodec(model.config.autoencoder.channels, model.config.patch)

    @property
    def config(self) -> NsarmConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def transformer(self) -> NextScaleTransformer:
        """The network that runs many times."""
        return self.model.transformer

    @property
    def visitors(self) -> Sequence[nn.Module]:
        """The networks that run once per batch."""
        autoencoder = self.model.autoencoder
        return autoencoder.encoder, self.model.transformation, autoencoder.decoder

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and side."""
        return self.config.scale

    @property
    def window(self) -> int:
        """Side of the window, in input pixels."""
        return self.config.window

    @property
    def overlap(self) -> int:
        """Fewest input pixels that neighbouring windows should share."""
        return self.config.overlap

    @property
    def sampling(self) -> Sampling:
        """Settings the weights were tuned for."""
        return self.config.sampling

    @property
    def color(self) -> str:
        """Colour correction the weights were tuned for."""
        return self.config.color

    @torch.inference_mode()
    def resolve(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Enlarge "b 3 window window" in [-1, 1]; see `SuperResolver.resolve`."""
        return in_parts(
            self.resolve_together, lr, generators, sampling, on_scale=on_scale, trace=trace
        )

    @torch.inference_mode()
    def resolve_together(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """The same in one batch whatever the device, rounded as this batch is."""
        return self.model.decode(self.feature(lr, generators, sampling, on_scale, trace))

    @torch.no_grad()
    def feature(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Sum of all codes "b d h w": known scales from the network, the others sampled."""
        if len(generators) != len(lr):
            raise ValueError(f"{len(generators)} generators for {len(lr)} windows")
        known = self.model.preliminary_codes(lr)
        if trace is not None:
            for k, codes in enumerate(known):
                bits = self._codec.to_tokens(bsq.latents_to_bits(codes[:1]))
                trace[f"{self._codec.symbols}.{k}"] = bits.cpu()
        transformer = self.model.transformer
        return generate(
            transformer,
            self._schedule,
            self._pyramid,
            self._codec,
            known=known,
            condition=self._condition(len(lr), sampling),
            rope=transformer.rope(self._schedule, lr.device),
            generators=generators,
            sampling=sampling,
            guidance=Guidance.of(sampling, len(self._schedule)),
            on_scale=on_scale,
            trace=trace,
        ).feature

    def _condition(self, batch: int, sampling: Sampling) -> PreparedCondition:
        """The condition that all windows share, made once.

        One row and several rows of a matrix product are not always summed in the same order,
        so making it once is also what keeps a window's result free of its batch.
        """
        guided = Guidance.of(sampling, len(self._schedule)) is not None
        return self.model.transformer.prepare(self._branches(guided=guided)).repeat(batch)

    def _check(self, model: NsarmModel) -> None:
        """Raise a ValueError unless this class can run the model."""
        if not isinstance(model.conditioner, ConstantConditioner):
            raise ValueError(f"{model.config.name} takes text, so it needs a prompt")  # noqa: TRY004

    def _branches(self, *, guided: bool) -> Condition:
        """The condition of one window: one row, or two with the unconditional branch last."""
        if guided:
            raise ValueError(f"{self.config.name} has no text, so guidance must be 1")
        return self.model.conditioner(1)  # type: ignore[no-any-return]


class NsarmTextResolver(NsarmResolver):
    """Runs a model with text, under one prompt for all windows; a `TakesText`.

    Args:
        model: with weights, in inference mode.
        prompt: features "m x".
        negative: features "m x" for the unconditional branch; by default the learned caption.
    """

    def __init__(self, model: NsarmModel, prompt: Tensor, negative: Tensor | None = None) -> None:
        super().__init__(model)
        for features in (prompt, negative):
            if features is not None and features.shape[1:] != (self.text_width,):
                raise ValueError(
                    f"{model.config.name} takes features of width {self.text_width}, "
                    f"not {tuple(features.shape)}"
                )
        self._prompt = prompt
        self._negative = negative

    @property
    def scales(self) -> int:
        """Number of scales."""
        return len(self._schedule)

    @property
    def text_width(self) -> int:
        """Numbers (x) in a token of a prompt."""
        assert self.config.text_width is not None  # noqa: S101  (checked in the constructor)
        return self.config.text_width

    def with_text(self, text: Text) -> "NsarmTextResolver":
        """The same model under other prompts; see `TakesText.with_text`."""
        return NsarmTextResolver(
            self.model,
            self._prompt if text.prompt is None else text.prompt,
            self._negative if text.negative is None else text.negative,
        )

    def _check(self, model: NsarmModel) -> None:
        if not isinstance(model.conditioner, TextConditioner):
            raise ValueError(f"{model.config.name} has no text, so it takes no prompt")  # noqa: TRY004

    def _branches(self, *, guided: bool) -> Condition:
        conditioner = self.model.conditioner
        assert isinstance(conditioner, TextConditioner)  # noqa: S101  (as above)
        captions = [self._prompt]
        if guided and self._negative is not None:
            captions.append(self._negative)
        elif guided:
            captions += conditioner.unconditional_like(captions)
        device = conditioner.unconditional.device
        return conditioner([caption.to(device) for caption in captions])  # type: ignore[no-any-return]

"""VARSR as a resolver: low-resolution windows in, summed codes or enlarged windows out.

Letters: b windows, h w pixels, d latent channels, p latents of a window per side.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from nsarm_cli.models.core.condition import PreparedCondition
from nsarm_cli.models.core.generate import Guidance, generate
from nsarm_cli.models.core.parts import in_parts
from nsarm_cli.models.core.transformer import NextScaleTransformer
from nsarm_cli.models.interface import OnScale, Sampling, Trace
from nsarm_cli.models.varsr.codec import IndexCodec
from nsarm_cli.models.varsr.config import GOOD, POOR, VarsrConfig
from nsarm_cli.models.varsr.diffusion import Diffusion, spaced
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.windows import window_weights


class VarsrResolver:
    """Runs a model window by window; a `JoinsLatents`.

    Guidance leads away from poor quality. One number, the weight 1 + t, stands for a strength
    that rises evenly from 0 at the first scale to t at the last and is t in the refiner; 1 is
    off in both. (The authors' code takes t = 1 as off in the refiner alone.)

    Args:
        model: with weights, in inference mode; it must see pictures.
    """

    def __init__(self, model: VarsrModel) -> None:
        if model.prefix is None:
            raise ValueError(f"{model.config.name} sees no pictures")
        self.model = model
        self._schedule = model.config.schedule
        self._pyramid = model.pyramid
        self._codec = IndexCodec(model.tokenizer.quantiser)

    @property
    def config(self) -> VarsrConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def transformer(self) -> NextScaleTransformer:
        """The network that runs many times."""
        return self.model.transformer

    @property
    def visitors(self) -> Sequence[nn.Module]:
        """The networks that run once per batch, and the tokenizer's encoder, which never does."""
        tokenizer = self.model.tokenizer
        assert self.model.prefix is not None  # noqa: S101  (checked in the constructor)
        return self.model.prefix, tokenizer.encoder, tokenizer.decoder

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

    @property
    def scales(self) -> int:
        """Number of scales."""
        return len(self._schedule)

    @property
    def pixels_per_latent(self) -> int:
        """Input pixels that one latent covers, per side."""
        return self.config.pixels_per_latent

    @property
    def latent_weights(self) -> Tensor:
        """Weights "p p" of a window where windows are joined; see `window_weights`."""
        return window_weights(self.config.sides[-1])

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
        features = self.features(lr, generators, sampling, on_scale, trace)
        return torch.cat([self.decode(feature[None]) for feature in features])

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
        return self.decode(self._features(lr, generators, sampling, on_scale, trace))

    @torch.inference_mode()
    def features(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """Summed codes "b d p p", float32, of "b 3 window window"; see `JoinsLatents.features`."""
        return in_parts(self._features, lr, generators, sampling, on_scale=on_scale, trace=trace)

    @torch.inference_mode()
    def decode(self, feature: Tensor) -> Tensor:
        """Picture "b 3 (16 h) (16 w)" of summed codes "b d h w" of any size."""
        return self.model.decode(feature)

    def _features(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None,
        trace: Trace | None,
    ) -> Tensor:
        transformer, scales = self.model.transformer, len(self._schedule)
        guidance = _guidance(sampling, scales)
        generated = generate(
            transformer,
            self._schedule,
            self._pyramid,
            self._codec,
            known=[],
            condition=self._condition(lr, guided=guidance is not None),
            rope=transformer.rope(self._schedule, lr.device),
            generators=generators,
            sampling=sampling,
            guidance=guidance,
            on_scale=on_scale,
            trace=trace,
        )
        if sampling.refiner_steps == 0:
            return generated.feature
        assert generated.symbols is not None  # noqa: S101  (no scale is known beforehand)
        assert generated.hidden is not None  # noqa: S101
        codes = self._codec.to_codes(generated.symbols, self._schedule.latents[-1])
        tokens = self._codec.to_tokens(codes)
        strength = 0.0 if guidance is None else guidance.weights[-1] - 1
        # The last weight of several may be 1: the refiner then has no use for the other half.
        hidden = generated.hidden if strength else generated.hidden[: len(tokens)]

        def noise() -> Tensor:
            drawn = [torch.randn(tokens.shape[1:], generator=g) for g in generators]
            return torch.stack(drawn).to(lr.device)

        residual = self.model.refiner.sample(
            self.model.refiner_conditions(hidden, tokens),
            Diffusion.over(spaced(sampling.refiner_steps)),
            noise,
            strength,
        )
        feature = self.model.refined(generated.feature, residual)
        if trace is not None:
            trace["residual"] = residual[:1].cpu()
            trace["refined"] = feature[:1].cpu()
        return feature

    def _condition(self, lr: Tensor, *, guided: bool) -> PreparedCondition:
        """Good quality, and poor quality in a second half when guided; one picture for both."""
        prefix = self.model.prefix_tokens(self.model.enlarge(lr))
        names = [GOOD, POOR] if guided else [GOOD]
        labels = torch.tensor(names, device=lr.device).repeat_interleave(len(lr))
        condition = self.model.condition(labels, prefix.repeat(len(names), 1, 1))
        return self.model.transformer.prepare(condition)


def _guidance(sampling: Sampling, scales: int) -> Guidance | None:
    if sampling.guidance_layer != 0:
        raise ValueError("VARSR guides logits, so guidance_layer must be 0")
    if isinstance(sampling.guidance, tuple):
        return Guidance.of(sampling, scales)
    return Guidance.ramp(sampling.guidance - 1, scales)

"""NSARM as a `SuperResolver`: a low-resolution window in, a picture four times larger out."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from nsarm_cli.models.core.generate import Guidance, generate
from nsarm_cli.models.core.transformer import PreparedCondition
from nsarm_cli.models.interface import OnScale, Sampling, Trace
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.codec import BitCodec
from nsarm_cli.models.nsarm.conditioner import ConstantConditioner
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel


class NsarmResolver:
    """Runs a model window by window.

    Args:
        model: with weights, in inference mode.
        prompt: features "m x" of the fixed prompt; needed by models with a text conditioner.
    """

    def __init__(self, model: NsarmModel, prompt: Tensor | None = None) -> None:
        constant = isinstance(model.conditioner, ConstantConditioner)
        if constant is not (prompt is None):
            raise ValueError("a prompt is needed exactly where the model conditions on text")
        self.model = model
        self._prompt = prompt
        self._schedule = model.config.schedule
        self._pyramid = model.pyramid
        self._codec = BitCodec(model.config.autoencoder.channels, model.config.patch)

    @property
    def config(self) -> NsarmConfig:
        """The model's configuration."""
        return self.model.config

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
        if len(generators) != len(lr):
            raise ValueError(f"{len(generators)} generators for {len(lr)} windows")
        # A batch is rounded as no window alone is, and a processor gains nothing from one.
        size = 1 if lr.device.type == "cpu" else len(lr)
        pictures = []
        for start in range(0, len(lr), size):
            picture = self.resolve_together(
                lr[start : start + size],
                generators[start : start + size],
                sampling,
                _part(on_scale, start // size, len(lr) // size),
                None if start else trace,
            )
            pictures.append(picture)
        return torch.cat(pictures)

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
        conditioner = self.model.conditioner
        if isinstance(conditioner, ConstantConditioner):
            if guided:
                raise ValueError(f"{self.config.name} has no text, so guidance must be 1")
            condition = conditioner(1)
        else:
            assert self._prompt is not None  # noqa: S101  (checked in the constructor)
            captions = [self._prompt]
            if guided:
                captions += conditioner.unconditional_like(captions)
            condition = conditioner(captions)
        return self.model.transformer.prepare(condition).repeat(batch)


def _part(on_scale: OnScale | None, part: int, parts: int) -> OnScale | None:
    """Turn the progress of one part into that of all."""
    if on_scale is None:
        return None
    return lambda done, total: on_scale(part * total + done, parts * total)

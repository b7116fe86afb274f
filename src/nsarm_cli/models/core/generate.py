"""The loop over scales: known scales first in one pass, then one pass per sampled scale.

The loop knows nothing of a family. What a token means is the codec's affair; which
scales are known beforehand, and what the condition is, are arguments.

Letters: b windows, l tokens of a scale, t numbers per token, o logits per token, c latent
channels, h w latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from nsarm_cli.models.core.condition import PreparedCondition
from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.core.sampling import mix_guidance, sent
from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.core.transformer import AfterBlock, NextScaleTransformer
from nsarm_cli.models.interface import OnScale, Sampling, Trace


class Codec(Protocol):
    """Between logits, codes and input tokens."""

    symbols: str
    """What one scale's symbols are called in a trace, such as "bits"."""

    def skip(self, tokens: int, generators: Sequence[Generator]) -> None:
        """Pass over the randomness of a scale that is known, so a seed means one stream."""
        ...

    def draw(self, logits: Tensor, sampling: Sampling, generators: Sequence[Generator]) -> Tensor:
        """Draw one scale from logits "b l o", which the temperature has not divided yet.

        Returns its symbols, "b l ...".
        """
        ...

    def to_codes(self, symbols: Tensor, grid: tuple[int, int]) -> Tensor:
        """Codes "b c h w" of one scale; `grid` is its (height, width) in latents."""
        ...

    def to_tokens(self, feature: Tensor) -> Tensor:
        """Input tokens "b l t" of a running sum "b c h w" at one scale."""
        ...


@dataclass(frozen=True)
class Guidance:
    """Per-scale weights of the conditional branch, and where the branches are mixed.

    Attributes:
        weights: one per scale.
        layer: 0 mixes logits; -n mixes the hidden state after block depth-n.
    """

    weights: tuple[float, ...]
    layer: int

    @classmethod
    def of(cls, sampling: Sampling, scales: int) -> "Guidance | None":
        """From sampling settings, or None when every weight is 1.

        Raises:
            ValueError: the number of weights is neither 1 nor `scales`.
        """
        given = sampling.guidance
        weights = given if isinstance(given, tuple) else (given,) * scales
        if len(weights) != scales:
            raise ValueError(f"{len(weights)} guidance weights for {scales} scales")
        return None if all(w == 1 for w in weights) else cls(weights, sampling.guidance_layer)

    @classmethod
    def ramp(cls, strength: float, scales: int) -> "Guidance | None":
        """Strength 0 at the first scale, rising evenly to the last; None when it is 0.

        A strength t stands for the weight 1 + t: (1 + t) conditional - t unconditional.
        """
        if strength == 0:
            return None
        steps = max(1, scales - 1)
        return cls(tuple(1 + strength * k / steps for k in range(scales)), layer=0)

    def mix(self, both: Tensor, k: int) -> Tensor:
        """Mix the logits of a doubled batch (conditional half first) at scale k, "b l o"."""
        conditional, unconditional = both.chunk(2)
        return mix_guidance(conditional, unconditional, self.weights[k])

    def after_block(self, depth: int, first: int, lengths: Sequence[int]) -> AfterBlock | None:
        """The hook that mixes the hidden state of scales from `first` on, if the layer asks.

        Raises:
            ValueError: there is no such layer.
        """
        if self.layer == 0:
            return None
        if depth + self.layer < 0:
            raise ValueError(
                f"guidance_layer {self.layer} is before the first of {depth} blocks; "
                f"it goes from 0 to -{depth}"
            )
        weights = torch.tensor(self.weights[first : first + len(lengths)])
        per_token = weights.repeat_interleave(torch.tensor(lengths))[:, None]

        def mix(block: int, hidden: Tensor) -> Tensor:
            if block != depth + self.layer:
                return hidden
            conditional, unconditional = hidden.chunk(2)
            mixed = mix_guidance(conditional, unconditional, sent(per_token, hidden.device))
            return mixed.repeat(2, 1, 1)

        return mix


@dataclass(frozen=True)
class Generated:
    """What the loop over scales leaves behind.

    Attributes:
        feature: sum of all codes, "b c h w" at full size.
        symbols: drawn at the last scale, "b l ..."; None when all scales were known.
        hidden: the transformer's output for them, "b l width", or "2b l width" when guided,
            with the unconditional half last; None with `symbols`.
    """

    feature: Tensor
    symbols: Tensor | None
    hidden: Tensor | None


def generate(
    transformer: NextScaleTransformer,
    schedule: ScaleSchedule,
    pyramid: ResidualPyramid,
    codec: Codec,
    *,
    known: Sequence[Tensor],
    condition: PreparedCondition,
    rope: Tensor,
    generators: Sequence[Generator],
    sampling: Sampling,
    guidance: Guidance | None = None,
    on_scale: OnScale | None = None,
    trace: Trace | None = None,
) -> Generated:
    """Sample the scales that are not known and sum all codes.

    Args:
        transformer: predicts the scales.
        schedule: grids of all scales.
        pyramid: sums codes and makes the next input.
        codec: draws and converts.
        known: codes "b c h_k w_k" of the first scales; these replace the transformer's own.
        condition: for a batch of b, or of 2b with the unconditional half last when guided.
        rope: table of all scales.
        generators: one per window.
        sampling: temperature, top-p.
        guidance: weights of the conditional branch, or None for one branch.
        on_scale: progress, called once for the prefill and once per sampled scale.
        trace: receives "logits.k", the symbols drawn and "feature", of the first window.

    Returns:
        The sum of all codes, and what the last scale is made of.
    """
    scales, prefilled, depth = len(schedule), len(known), transformer.config.depth
    branches = 1 if guidance is None else 2
    passes = scales - prefilled + bool(prefilled)
    cache = transformer.allocate_cache(branches * len(generators), schedule)
    symbols: Tensor | None = None
    hidden: Tensor | None = None

    def run(first: int, inputs: Sequence[Tensor], count: int) -> Tensor:
        lengths = schedule.lengths[first : first + count]
        after = None if guidance is None else guidance.after_block(depth, first, lengths)
        doubled = [tokens.repeat(branches, 1, 1) for tokens in inputs]
        return transformer.hidden(
            doubled, first, schedule, rope, condition, cache=cache, after=after
        )

    feature: Tensor | None = None
    inputs: list[Tensor] = []
    for k, codes in enumerate(known):
        codec.skip(schedule.lengths[k], generators)
        feature = pyramid.add(feature, codes, k)
        if k + 1 < prefilled:
            inputs.append(codec.to_tokens(pyramid.next_input(feature, k + 1)))
    if known and prefilled < scales:
        run(0, inputs, prefilled)
        if on_scale is not None:
            on_scale(1, passes)
    for k in range(prefilled, scales):
        tokens = [] if feature is None else [codec.to_tokens(pyramid.next_input(feature, k))]
        # Of a prefix nothing is predicted, so its tokens need no head.
        hidden = run(k, tokens, 1)[:, schedule.prefix_length if k == 0 else 0 :]
        logits = transformer.logits(hidden, condition)
        if guidance is not None:
            logits = guidance.mix(logits, k) if guidance.layer == 0 else logits.chunk(2)[0]
        symbols = codec.draw(logits, sampling, generators)
        if trace is not None:
            trace[f"logits.{k}"] = logits[:1].cpu()
            trace[f"{codec.symbols}.{k}"] = symbols[:1].cpu()
        feature = pyramid.add(feature, codec.to_codes(symbols, schedule.latents[k]), k)
        if on_scale is not None:
            on_scale(k - prefilled + 1 + bool(prefilled), passes)
    if feature is None:
        raise ValueError("a schedule has at least one scale")
    if trace is not None:
        trace["feature"] = feature[:1].cpu()
    return Generated(feature, symbols, hidden)

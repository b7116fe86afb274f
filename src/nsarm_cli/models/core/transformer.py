"""Next-scale transformer: all scales at once for training, scale by scale for sampling.

Both ways are one function over consecutive scales; with a cache it continues after the
scales already there, so a prefill of known scales is the same call as a sampling step.

Letters: b batch, l tokens, c width, t numbers per input token, o outputs per token, K scales.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.models.core.attention import (
    AttentionPass,
    CrossAttention,
    KeyValueCache,
    PlanAttention,
    SelfAttention,
    WaitingCache,
    project,
    scale_by_scale,
)
from nsarm_cli.models.core.block import (
    Block,
    BlockContext,
    FeedForward,
    Modulation,
    SharedModulation,
    modulate,
)
from nsarm_cli.models.core.condition import Condition, PreparedCondition
from nsarm_cli.models.core.rope import rope_table
from nsarm_cli.models.core.schedule import ScaleSchedule

AtWork = Callable[[nn.Module], AbstractContextManager[object]]
"""Called as `with at_work(module)` around the work of a module, so that it can be brought near."""

AfterBlock = Callable[[int, Tensor], Tensor]
"""Called as `after(block index, hidden)`; its result replaces the hidden state."""


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of the transformer.

    Attributes:
        width: c.
        depth: blocks.
        heads: attention heads.
        inputs: t, numbers per input token.
        outputs: o, logits per token.
        scales: rows of the scale embedding.
        cross: whether blocks attend to context tokens.
        mlp_ratio: hidden width of the feed-forward relative to c.
        prefix: tokens of the condition before the start token.
    """

    width: int
    depth: int
    heads: int
    inputs: int
    outputs: int
    scales: int
    cross: bool
    mlp_ratio: float = 4.0
    prefix: int = 0


class AdaptiveHead(nn.Module):
    """Adaptive norm, then logits in float32."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, outputs)

    def scale_shift(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift "b 1 c" of the norm, from "b c"."""
        scale, shift = project(self.modulation, F.silu(pooled))[:, None].float().chunk(2, dim=-1)
        return scale, shift

    def forward(self, hidden: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Logits "b l o" of "b l c"."""
        return project(self.out, modulate(hidden, scale, shift)).float()


class NextScaleTransformer(nn.Module):
    """Predicts the tokens of each scale from all coarser scales.

    Args:
        config: the shape.
        signal: makes, for a width, what turns the pooled condition into the blocks' signal.
        modulation: makes, for a width, a block's part, which turns the signal into "b 1 6 c".
        settle: what becomes of a position on the common grid; see `rope_table`.

    Attributes:
        at_work: entered around the work of each block; by default it does nothing.
        cache_home: where the key-value cache lies; None is where the weights are.
        plan_attention: how the self-attention of a pass is computed.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        signal: Callable[[int], nn.Module] = Modulation,
        modulation: Callable[[int], nn.Module] = SharedModulation,
        settle: Callable[[Tensor], Tensor] = torch.round,
    ) -> None:
        super().__init__()
        self.config = config
        self._settle = settle
        width, heads = config.width, config.heads
        self.word_embedding = nn.Linear(config.inputs, width)
        # Zeros, not the random numbers of the constructor: drawing those on the meta device loads
        # the compiler, a second at every start.
        zeros = torch.zeros(config.scales, width)
        self.scale_embedding = nn.Embedding(config.scales, width, _weight=zeros)
        self.start = nn.Parameter(torch.zeros(1, config.prefix + 1, width))
        self.signal = signal(width)
        self.blocks = nn.ModuleList(
            Block(
                modulation(width),
                SelfAttention(width, heads),
                CrossAttention(width, heads) if config.cross else None,
                FeedForward(width, config.mlp_ratio),
                width,
            )
            for _ in range(config.depth)
        )
        self.head = AdaptiveHead(width, config.outputs)
        self.at_work: AtWork = nullcontext
        self.cache_home: torch.device | None = None
        self.plan_attention: PlanAttention = scale_by_scale

    def prepare(self, condition: Condition) -> PreparedCondition:
        """Compute start tokens, modulation and text keys once per picture."""
        pooled = condition.pooled.float()
        signal = self.signal(pooled)
        text = None
        if condition.context is not None:
            text = tuple(self._text(block, condition.context) for block in self.blocks)
        mask = None if condition.mask is None else condition.mask[:, None, None, :]
        scale, shift = self.head.scale_shift(pooled)
        start = pooled[:, None]
        if condition.prefix is not None:
            start = torch.cat([condition.prefix.float(), start], dim=1)
        start = start + self.start.float()
        return PreparedCondition(start, signal, scale, shift, text, mask)

    def _text(self, block: nn.Module, context: Tensor) -> tuple[Tensor, Tensor]:
        cross = block.cross
        assert isinstance(cross, CrossAttention)  # noqa: S101  (a context is for such blocks)
        with self.at_work(cross):
            return cross.keys_values(context)

    def rope(self, schedule: ScaleSchedule, device: torch.device) -> Tensor:
        """Rotary table "2 l (e/2)" of the prefix and all scales of a schedule."""
        head_width = self.config.width // self.config.heads
        prefix = [] if schedule.prefix is None else [schedule.prefix]
        grids = [*prefix, *schedule.tokens]
        return rope_table(grids, head_width, schedule.position_grid, self._settle).to(
            device, non_blocking=True
        )

    def allocate_cache(self, batch: int, schedule: ScaleSchedule) -> KeyValueCache:
        """An empty cache for the prefix and all scales, in `cache_home` if it is set."""
        heads = self.config.heads
        kind = KeyValueCache if self.cache_home is None else WaitingCache
        return kind.allocate(
            len(self.blocks),
            batch,
            heads,
            schedule.total,
            self.config.width // heads,
            device=self.cache_home or self.word_embedding.weight.device,
            dtype=self._linear_dtype,
        )

    @property
    def _linear_dtype(self) -> torch.dtype:
        """Of the weights of the blocks' linear layers."""
        return self.blocks[0].attention.qkv.weight.dtype  # type: ignore[union-attr,return-value]

    def hidden(
        self,
        inputs: Sequence[Tensor],
        first: int,
        schedule: ScaleSchedule,
        rope: Tensor,
        condition: PreparedCondition,
        *,
        cache: KeyValueCache | None = None,
        after: AfterBlock | None = None,
    ) -> Tensor:
        """Run consecutive scales through the blocks.

        Args:
            inputs: "b l_k t" for each scale from `first` on; scale 0 has none, its place
                is taken by prefix and start token, so with `first` 0 the list begins at scale 1.
            first: index of the first scale.
            schedule: grids of all scales.
            rope: of all scales.
            condition: from `prepare`.
            cache: of the scales before `first`; these are added to it.
            after: applied after each block.

        Returns:
            "b l c", float32.
        """
        parts = [condition.start + self.scale_embedding.weight[0].float()] if first == 0 else []
        for k, tokens in enumerate(inputs, start=max(first, 1)):
            embedded = project(self.word_embedding, tokens).float()
            parts.append(embedded + self.scale_embedding.weight[k].float())
        x = torch.cat(parts, dim=1)
        begin = schedule.offsets[first]
        heads = self.config.heads
        asked = AttentionPass(
            x.shape[0],
            heads,
            self.config.width // heads,
            tuple(part.shape[1] for part in parts),
            0 if cache is None else cache.length,
            x.device,
            self._linear_dtype,
        )
        context = BlockContext(
            condition.signal,
            rope[:, begin : begin + x.shape[1]],
            self.plan_attention(asked),
            cache,
            condition.text,
            condition.text_mask,
        )
        x = self.through_blocks(x, context, after)
        if cache is not None:
            cache.length += x.shape[1]
        return x

    def let_go(self) -> None:
        """Drop what is kept from run to run, if anything, since weights are put elsewhere."""

    def through_blocks(self, x: Tensor, context: BlockContext, after: AfterBlock | None) -> Tensor:
        """Run "b l c" through all blocks; see `hidden`."""
        for index, block in enumerate(self.blocks):
            with self.at_work(block):
                x = block(x, context, index)
            if after is not None:
                x = after(index, x)
        return x

    def logits(self, hidden: Tensor, condition: PreparedCondition) -> Tensor:
        """Logits "b l o" of "b l c"."""
        return self.head(hidden, condition.head_scale, condition.head_shift)  # type: ignore[no-any-return]

    def forward(
        self, inputs: Sequence[Tensor], schedule: ScaleSchedule, condition: Condition
    ) -> Tensor:
        """Teacher-forced logits of scale 0 and the scales in `inputs`, "b l o"."""
        prepared = self.prepare(condition)
        device = condition.pooled.device
        hidden = self.hidden(inputs, 0, schedule, self.rope(schedule, device), prepared)
        return self.logits(hidden[:, schedule.prefix_length :], prepared)

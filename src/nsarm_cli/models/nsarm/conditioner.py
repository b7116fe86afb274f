"""Where the condition of NSARM comes from: a caption's features, or a learned constant.

Letters: b batch, m text tokens, x width of a text token, c width of the transformer,
n heads of the pooling, e width of one of them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from nsarm_cli.models.core.attention import project
from nsarm_cli.models.core.condition import Condition

_POOL_HEAD_INPUT = 128


class AttentivePool(nn.Module):
    """One learned query attends to all tokens of a caption."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.heads = inputs // _POOL_HEAD_INPUT
        self.query = nn.Parameter(torch.zeros(1, self.heads, width // self.heads))
        self.kv = nn.Linear(inputs, 2 * width, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)

    def forward(self, text: Tensor, mask: Tensor | None) -> Tensor:
        """Pool "b m x" to "b c"; `mask` is "b m", true where a token exists."""
        keys, values = project(self.kv, text).chunk(2, dim=-1)
        values = values + self.v_bias.to(values.dtype)
        split = "b m (n e) -> b n m e"
        keys, values = (rearrange(t, split, n=self.heads) for t in (keys, values))
        query = self.query[:, :, None].to(keys.dtype).expand(len(text), -1, -1, -1)
        attended = None if mask is None else mask[:, None, None, :]
        pooled = F.scaled_dot_product_attention(query, keys, values, attn_mask=attended)
        return project(self.out, rearrange(pooled, "b n 1 e -> b (n e)"))


class TextConditioner(nn.Module):
    """Features of a frozen text encoder to the transformer's condition.

    Args:
        inputs: x.
        width: c.
        longest: tokens of the learned unconditional caption.
    """

    def __init__(self, inputs: int, width: int, longest: int = 512) -> None:
        super().__init__()
        self.unconditional = nn.Parameter(torch.zeros(longest, inputs))
        self.norm = nn.RMSNorm(inputs, eps=1e-6)
        self.pool = AttentivePool(inputs, width)
        self.lift = nn.Linear(inputs, width)
        self.out = nn.Linear(width, width)

    def forward(self, captions: Sequence[Tensor]) -> Condition:
        """Condition a batch on one feature tensor "m x" per sample, each of its own length."""
        lengths = [len(caption) for caption in captions]
        longest = max(lengths)
        text = torch.stack([F.pad(c.float(), (0, 0, 0, longest - len(c))) for c in captions])
        mask = None
        if min(lengths) != longest:
            mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
            mask = mask.to(text.device, non_blocking=True)
        normed = F.rms_norm(text, text.shape[-1:], self.norm.weight.float(), self.norm.eps)
        context = project(self.out, F.gelu(project(self.lift, normed), approximate="tanh"))
        return Condition(self.pool(normed, mask), context, mask)

    def unconditional_like(self, captions: Sequence[Tensor]) -> list[Tensor]:
        """The learned unconditional caption, cut to the length of each caption."""
        return [self.unconditional[: len(caption)] for caption in captions]


class ConstantConditioner(nn.Module):
    """A learned vector in place of the fixed prompt, for models without a text encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(1, width))

    def forward(self, batch: int) -> Condition:
        """The same condition for a batch of any size."""
        return Condition(self.constant.expand(batch, -1))

"""What a family tells the transformer about a picture besides its tokens.

Letters: b batch, c width, m context tokens, p tokens of a prefix.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """What a conditioner hands to the transformer.

    Attributes:
        pooled: "b c", the start token and the source of all modulation.
        context: "b m c" tokens for cross-attention, or None.
        mask: "b m", true where a context token exists; None when all do.
        prefix: "b p c" tokens before the start token, which belong to scale 0; None without.
    """

    pooled: Tensor
    context: Tensor | None = None
    mask: Tensor | None = None
    prefix: Tensor | None = None


@dataclass(frozen=True)
class PreparedCondition:
    """A condition with everything computed that does not depend on the scale."""

    start: Tensor
    signal: Tensor
    head_scale: Tensor
    head_shift: Tensor
    text: tuple[tuple[Tensor, Tensor], ...] | None
    text_mask: Tensor | None

    def repeat(self, times: int) -> "PreparedCondition":
        """The same condition for `times` windows in place of each."""

        def more(tensor: Tensor) -> Tensor:
            return tensor.repeat_interleave(times, dim=0)

        return PreparedCondition(
            more(self.start),
            more(self.signal),
            more(self.head_scale),
            more(self.head_shift),
            None if self.text is None else tuple((more(k), more(v)) for k, v in self.text),
            None if self.text_mask is None else more(self.text_mask),
        )

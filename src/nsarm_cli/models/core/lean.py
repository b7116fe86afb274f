"""Decoders in float32 on a processor: fewer multiplications, and half of the memory.

A decoder that runs as its definition says holds three or four maps at once: input, normed input,
result, and the convolution's own copies. Here norms, activations and sums happen on the bands of
rows of `winograd.convolve`, and a block's result goes where its input was: two maps are the most.
The result differs by rounding alone. Encoders, whose results are rounded to codes, stay as they
are.

Letters: b pictures, c channels in, k channels out, h w height and width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.models.core.convolution import ResidualBlock, Upsample
from nsarm_cli.models.core.winograd import ONCE, TWICE, Kind, convolve

_PIECE = 2**17
"""Numbers of a map that are worked on at once where they should stay in a cache of 1 MiB."""


def make_lean(decoder: nn.Module) -> None:
    """Let the blocks, the enlargements and the end of a decoder run leanly where it pays.

    That is without gradients, in float32, on a processor; elsewhere they run as defined.

    Args:
        decoder: ends with `finish`, which takes "b c h w" through `norm_out`, SiLU and `conv_out`.
            It must not use the input of a block after the block, which overwrites it.
    """
    for part in decoder.modules():
        if isinstance(part, ResidualBlock):
            _replace(part, "forward", _residual_block)
        elif isinstance(part, Upsample):
            _replace(part, "forward", _upsample)
    if hasattr(decoder, "finish"):
        _replace(decoder, "finish", _finish)


def _replace(part: nn.Module, name: str, lean: Callable[[Any, Tensor], Tensor]) -> None:
    plain: Callable[[Tensor], Tensor] = getattr(part, name)

    def run(x: Tensor) -> Tensor:
        applies = (
            x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_grad_enabled()
        )
        return lean(part, x) if applies else plain(x)

    # On the object, not its class: the next model of this process is not concerned.
    object.__setattr__(part, name, run)


def _residual_block(block: ResidualBlock, x: Tensor) -> Tensor:
    """`ResidualBlock.forward`, with the result in the place of x where it has room there."""
    c, k = x.shape[1], block.conv1.out_channels
    out = x[:, :k] if k <= c else x.new_empty(len(x), k, *x.shape[2:])
    hidden = x.new_empty(k, *x.shape[2:])
    size = (x.shape[2], x.shape[3])
    for sample, place in zip(x, out, strict=True):
        _convolve(block.conv1, sample, hidden, block.norm1)

        def add(
            first: int, last: int, band: Tensor, x: Tensor = sample, to: Tensor = place
        ) -> None:
            # Rows of x are read before they are overwritten, and no others are needed.
            rows = _shortcut(block.shortcut, x[:, first:last])
            torch.add(rows, band, out=to[:, first:last]).add_(_bias(block.conv2))

        convolve(block.conv2.weight, size, _Rows(hidden, block.norm2).read, add)
    return out


def _shortcut(shortcut: nn.Module, rows: Tensor) -> Tensor:
    """Rows "k r w" of rows "c r w"."""
    if not isinstance(shortcut, nn.Conv2d):
        return rows
    c = rows.shape[0]
    mixed = shortcut.weight.view(-1, c) @ rows.reshape(c, -1)
    return mixed.view(-1, *rows.shape[1:]).add_(_bias(shortcut))


def _upsample(up: Upsample, x: Tensor) -> Tensor:
    """`Upsample.forward` without the repeated map."""
    b, c, h, w = x.shape
    out = x.new_empty(b, c, 2 * h, 2 * w)
    for sample, place in zip(x, out, strict=True):

        def read(first: int, last: int, band: Tensor, x: Tensor = sample) -> None:
            band.copy_(x[:, first:last])

        _run(up.conv, read, place, TWICE)
    return out


def _finish(decoder: Any, x: Tensor) -> Tensor:
    """The decoder's end."""
    out = x.new_empty(len(x), decoder.conv_out.out_channels, *x.shape[2:])
    for sample, place in zip(x, out, strict=True):
        _convolve(decoder.conv_out, sample, place, decoder.norm_out)
    return out


def _convolve(conv: nn.Conv2d, x: Tensor, out: Tensor, norm: nn.GroupNorm) -> None:
    """Norm, SiLU and convolution from "c h w" to "k h w"."""
    _run(conv, _Rows(x, norm).read, out)


def _run(
    conv: nn.Conv2d, read: Callable[[int, int, Tensor], None], out: Tensor, kind: Kind = ONCE
) -> None:
    bias = _bias(conv)

    def write(first: int, last: int, band: Tensor) -> None:
        torch.add(band, bias, out=out[:, first:last])

    size = (out.shape[1] // kind.places, out.shape[2] // kind.places)
    convolve(conv.weight, size, read, write, kind)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # noqa: S101  (all convolutions of these networks have one)
    return conv.bias[:, None, None]


class _Rows:
    """Rows of a map "c h w", normed and activated on their way.

    Args:
        x: the map.
        norm: over groups of its channels.
    """

    def __init__(self, x: Tensor, norm: nn.GroupNorm) -> None:
        groups, size = norm.num_groups, len(x) // norm.num_groups
        mean = x.view(groups, -1).mean(dim=1).repeat_interleave(size)
        total = torch.zeros(len(x), dtype=torch.float64)
        # A few rows at once, in the same memory, which stays in the cache; PyTorch's own variance
        # is four times as slow.
        rows = max(1, _PIECE // (x.shape[0] * x.shape[2]))
        room = x.new_empty(x.shape[0], rows, x.shape[2])
        for some in torch.split(x, rows, dim=1):
            apart = torch.sub(some, mean[:, None, None], out=room[:, : some.shape[1]])
            total += torch.linalg.vector_norm(apart, dim=2).double().square_().sum(dim=1)
        variance = total.view(groups, size).sum(dim=1) / (size * x[0].numel())
        variance = variance.to(x.dtype).repeat_interleave(size)
        factor = torch.rsqrt(variance + norm.eps) * norm.weight
        self._x = x
        self._factor = factor[:, None, None]
        self._shift = (norm.bias - mean * factor)[:, None, None]

    def read(self, first: int, last: int, band: Tensor) -> None:
        """Fill "c (last - first) w" with these rows; see `winograd.Read`."""
        torch.addcmul(self._shift, self._x[:, first:last], self._factor, out=band)
        F.silu(band, inplace=True)

"""The refiner: a small diffusion network that adds what the codebook cannot express.

It sees one cell at a time, under a condition from the transformer's last hidden state (as in
MAR, arXiv 2406.11838).

Letters: b batch, l cells, d latent channels, c width of the transformer, w width of the
refiner.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.models.core.attention import project
from nsarm_cli.models.varsr.diffusion import Diffusion

EPS = 1e-6

RESIDUAL_SCALE = 0.6
"""Residuals are divided by this before the diffusion, which works on [-1, 1]."""

_FREQUENCIES = 128


@dataclass(frozen=True)
class RefinerConfig:
    """Shape of the refiner.

    Attributes:
        width: w.
        blocks: residual blocks.
    """

    width: int
    blocks: int


class RefinerBlock(nn.Module):
    """x + gate * MLP(norm(x) (1 + scale) + shift)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Process "b l w" under "b l w"."""
        shift, scale, gate = project(self.modulation, F.silu(condition)).float().chunk(3, dim=-1)
        normed = _norm(self.norm, x) * (1 + scale) + shift
        return x + gate * project(self.down, F.silu(project(self.up, normed))).float()


class Refiner(nn.Module):
    """Predicts the noise in a residual, and how sure it is.

    Args:
        config: the shape.
        channels: d.
        width: c.
    """

    def __init__(self, config: RefinerConfig, channels: int, width: int) -> None:
        super().__init__()
        inner = config.width
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, inner), nn.SiLU(), nn.Linear(inner, inner)
        )
        self.condition = nn.Linear(width, inner)
        self.lift = nn.Linear(channels, inner)
        self.blocks = nn.ModuleList(RefinerBlock(inner) for _ in range(config.blocks))
        self.modulation = nn.Linear(inner, 2 * inner)
        self.out = nn.Linear(inner, 2 * channels)

    def conditions(self, hidden: Tensor) -> Tensor:
        """The condition "b l c" of the transformer's output with the embedded codes added."""
        return _norm(self.norm, hidden)

    def forward(self, x: Tensor, times: Tensor, conditions: Tensor) -> Tensor:
        """Predict noise and variance.

        Args:
            x: "... d".
            times: trained step of each vector, "...", or one for all.
            conditions: "... c", from `conditions`.

        Returns:
            "... 2d", float32: noise, then variance from -1 to 1 (not clamped).
        """
        time = self.time(time_features(times).to(self.lift.weight.dtype)).float()
        y = time + project(self.condition, conditions).float()
        x = project(self.lift, x).float()
        for block in self.blocks:
            x = block(x, y)
        shift, scale = project(self.modulation, F.silu(y)).float().chunk(2, dim=-1)
        normed = F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift
        return project(self.out, normed).float()

    def sample(
        self,
        conditions: Tensor,
        diffusion: Diffusion,
        noise: Callable[[], Tensor],
        strength: float,
    ) -> Tensor:
        """Draw residuals.

        Args:
            conditions: "b l c", or "2b l c" with the unconditional half last; see `strength`.
            diffusion: over the steps to take.
            noise: gives standard normal numbers "b l d": once at the start, then for every
                step but the last.
            strength: of the guidance; 0 with one half, any other with two.

        Returns:
            "b l d", float32, to be added to the codes of the last scale.
        """
        branches = 1 if strength == 0 else 2
        x = noise()
        for i in reversed(range(len(diffusion.times))):
            step = torch.tensor([i], device=x.device)
            time = torch.tensor(diffusion.times[i], device=x.device)
            predicted = self(x.repeat(branches, 1, 1), time, conditions)
            towards, variance = predicted[: len(x)].chunk(2, dim=-1)
            if branches == 2:
                away = predicted[len(x) :].chunk(2, dim=-1)[0]
                towards = (1 + strength) * towards - strength * away
            clean = diffusion.clean(x, step, towards).clamp(-1, 1)
            moments = diffusion.predicted_back(clean, variance, x, step)
            x = moments.mean
            if i:
                x = x + (0.5 * moments.log_variance).exp() * noise()
        return RESIDUAL_SCALE * x


def time_features(times: Tensor) -> Tensor:
    """Cosines and sines "... 256" of steps "...", at frequencies from 1 to about 1/10000."""
    exponents = torch.arange(_FREQUENCIES, dtype=torch.float32, device=times.device) / _FREQUENCIES
    angles = times[..., None].float() * (-math.log(10000) * exponents).exp()
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight.float(), norm.bias.float(), norm.eps)

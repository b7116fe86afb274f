"""The networks of NSARM together, and what they do to a window before the loop over scales."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nsarm_cli.models.core.lean import make_lean
from nsarm_cli.models.core.pyramid import ResidualPyramid
from nsarm_cli.models.core.transformer import NextScaleTransformer
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.autoencoder import Autoencoder
from nsarm_cli.models.nsarm.conditioner import ConstantConditioner, TextConditioner
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.transformation import build_transformation


class NsarmModel(nn.Module):
    """Autoencoder, transformation network, conditioner and transformer of one configuration."""

    def __init__(self, config: NsarmConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(config.autoencoder)
        self.transformation = build_transformation(config.transformation)
        width = config.transformer.width
        self.conditioner: TextConditioner | ConstantConditioner = (
            ConstantConditioner(width)
            if config.text_width is None
            else TextConditioner(config.text_width, width)
        )
        self.transformer = NextScaleTransformer(config.transformer)

    @property
    def pyramid(self) -> ResidualPyramid:
        """The residual pyramid of one window."""
        return ResidualPyramid(self.config.schedule.latents)

    def encode_lr(self, lr: Tensor) -> Tensor:
        """Latents of low-resolution windows "b 3 window window" in [-1, 1], float32."""
        if self.config.enlarge > 1:
            lr = F.interpolate(
                lr, scale_factor=self.config.enlarge, mode="bicubic", align_corners=False
            )
        weight = self.autoencoder.encoder.conv_in.weight
        return self.autoencoder.encode(lr.to(weight.dtype)).float()

    def preliminary_residuals(self, lr: Tensor) -> list[Tensor]:
        """Residuals of the first scales, "b d s s" each, float32, not quantised."""
        dtype = next(self.transformation.parameters()).dtype
        return [r.float() for r in self.transformation(self.encode_lr(lr).to(dtype))]

    def preliminary_codes(self, lr: Tensor) -> list[Tensor]:
        """Codes of the first scales, which replace the transformer's own (NSARM sec. 3.2)."""
        return [bsq.quantise(residual) for residual in self.preliminary_residuals(lr)]

    def decode(self, feature: Tensor) -> Tensor:
        """Pictures "b 3 h w" in [-1, 1], float32, of summed codes."""
        weight = self.autoencoder.decoder.conv_in.weight
        return self.autoencoder.decode(feature.to(weight.dtype)).float()


def cast_for_inference(model: NsarmModel, dtype: torch.dtype) -> NsarmModel:
    """Store convolutions and block weights in `dtype`; conditions and the head stay float32.

    The residual stream, the norms and the logits are computed in float32 whatever the type.
    Convolutions keep "b c h w" in memory: with channels last, PyTorch's group norm on a
    processor takes the variance as a difference of means, which costs three digits and
    depends on the number of threads. The decoder may run leanly (`core.lean`).
    """
    model.autoencoder.to(dtype)
    model.transformation.to(dtype)
    model.transformer.blocks.to(dtype)
    model.transformer.word_embedding.to(dtype)
    make_lean(model.autoencoder.decoder)
    return model

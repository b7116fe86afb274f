"""A scaled VARSR as its authors would publish it: same names and nesting, small widths."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.varsr.config import VARSR, VarsrConfig
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.refiner import RefinerConfig
from nsarm_cli.models.varsr.tokenizer import TokenizerConfig
from nsarm_cli.weights.varsr_keymap import _model_file, _tokenizer_file

MICRO_VARSR: VarsrConfig = dataclasses.replace(
    VARSR,
    name="micro-varsr",
    sides=(1, 2, 3, 4),
    tokenizer=TokenizerConfig(4, 32, encoder_blocks=1, decoder_blocks=1, codes=24),
    prefix=(4, 4, 8, 8, 8),
    transformer=TransformerConfig(32, 2, 2, 4, 24, 4, cross=False, prefix=16),
    refiner=RefinerConfig(32, 2),
    overlap=4,
    sampling=dataclasses.replace(VARSR.sampling, refiner_steps=3),
)

MICRO_CLASSES: VarsrConfig = dataclasses.replace(
    MICRO_VARSR,
    name="micro-varsr-c2i",
    sides=(1, 2, 4),
    prefix=None,
    transformer=dataclasses.replace(MICRO_VARSR.transformer, scales=3, prefix=0),
    labels=6,
)
"""The model of classes of the first stage; its scales are others, as are the authors'."""


def make_varsr(config: VarsrConfig = MICRO_VARSR) -> VarsrModel:
    """A model in which every number is different and no signal dies or explodes."""
    generator = torch.Generator().manual_seed(3)
    model = VarsrModel(config)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        # Strong where the picture comes in, so that the indices depend on it.
        gain = 2.0 if name.startswith(("prefix", "transformer")) else 1.0
        spread = gain * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        is_norm = "norm" in name and name.endswith("weight")
        parameter.data = noise * spread + (1.0 if is_norm else 0.0)
    return model.eval().requires_grad_(requires_grad=False)


def model_to_upstream(
    tensors: dict[str, Tensor], config: VarsrConfig, source: str
) -> dict[str, Tensor]:
    """Undo `model_from_upstream`; the tokenizer's tensors are passed over."""
    return _model_file(config).restore(tensors, source)


def tokenizer_to_upstream(
    tensors: dict[str, Tensor], config: VarsrConfig, source: str
) -> dict[str, Tensor]:
    """Undo `tokenizer_from_upstream`; other tensors are passed over."""
    return _tokenizer_file(config).restore(tensors, source)


def varsr_tensors(model: VarsrModel) -> dict[str, Tensor]:
    """With the buffers that the authors' code computes and saves."""
    total = model.config.schedule.total
    levels = torch.arange(total)[None]
    mask = torch.zeros(1, 1, total, total).masked_fill(levels[0, :, None] < levels[0], -torch.inf)
    tensors = model_to_upstream(model.state_dict(), model.config, "model")
    return tensors | {"lvl_1L": levels, "attn_bias_for_masking": mask[None, None][0, 0]}


def tokenizer_tensors(model: VarsrModel) -> dict[str, Tensor]:
    tensors = tokenizer_to_upstream(model.state_dict(), model.config, "model")
    return tensors | {"quantize.ema_vocab_hit_SV": torch.zeros(7, model.config.tokenizer.codes)}


def publish_varsr(model: VarsrModel, folder: Path, name: str = "VARSR.pth") -> list[Path]:
    """Write `name` with all that the authors' trainer saves, and VQVAE.pth."""
    folder.mkdir(parents=True)
    paths = [folder / name, folder / "VQVAE.pth"]
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 5e-5}]}
    trainer = {"config": {}, "var_wo_ddp": varsr_tensors(model), "var_opt": optimizer}
    torch.save({"epoch": 1, "iter": 2, "trainer": trainer}, paths[0])
    torch.save({"trainer": {"vae_local": tokenizer_tensors(model)}}, paths[1])
    return paths

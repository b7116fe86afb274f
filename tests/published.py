"""A scaled NSARM-8B as its authors would publish it: same names and file formats, small widths."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nsarm_cli.models.core.transformer import TransformerConfig
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NSARM_8B, NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.transformation import BranchConfig, TransformationConfig
from nsarm_cli.weights.keymap import autoencoder_to_upstream, transformer_to_upstream

MICRO_8B: NsarmConfig = dataclasses.replace(
    NSARM_8B,
    name="micro-8b",
    window=32,
    sides=(1, 2, 4, 8),
    autoencoder=AutoencoderConfig(6, 8, (1, 2, 2, 2), 1, 2, groups=4),
    transformation=TransformationConfig(
        6, 4, (8, 16), (BranchConfig(2, 16, 1, 2), BranchConfig(4, 32, 2, 4))
    ),
    transformer=TransformerConfig(64, 4, 2, 24, 48, scales=15, cross=True),
    text_width=256,
    overlap=8,
)

_MODULE_SPELLING = re.compile(r"(conv\w*|norm\w*|nin_shortcut)(?=\.\w+$)")


def make_model(config: NsarmConfig = MICRO_8B) -> NsarmModel:
    """A model in which every number is different and no signal dies or explodes."""
    generator = torch.Generator().manual_seed(3)
    model = NsarmModel(config)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.data = noise * spread + (1.0 if parameter.ndim == 1 else 0.0)
    return model.eval()


def transformer_tensors(model: NsarmModel) -> dict[str, Tensor]:
    return transformer_to_upstream(model.state_dict(), model.config, "model", blocks_per_chunk=2)


def autoencoder_tensors(model: NsarmModel, *, as_module: bool = False) -> dict[str, Tensor]:
    """In the shorter spelling of the names, or the longer one of the authors' module."""
    tensors = autoencoder_to_upstream(model.state_dict(), model.config, "model")
    if not as_module:
        return tensors

    def long(name: str) -> str:
        inner = "norm" if "norm" in name.rsplit(".", 2)[-2] else "conv"
        return _MODULE_SPELLING.sub(rf"\1.{inner}", name)

    return {name if "lfq" in name else long(name): tensor for name, tensor in tensors.items()}


def save_parts(path: Path, count: int) -> list[Path]:
    """Replace a file by parts, named as `split` does."""
    raw = path.read_bytes()
    size = -(-len(raw) // count)
    parts = []
    for i in range(count):
        parts.append(path.with_name(f"{path.stem}_part_a{chr(ord('a') + i)}"))
        parts[-1].write_bytes(raw[i * size : (i + 1) * size])
    path.unlink()
    return parts


def save_t5(encoder: Path, folder: Path) -> Path:
    """Publish a T5 as the Hub has it: in shards, with a decoder, in float32."""
    shutil.copytree(encoder, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    more = {"decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(64, 256)}
    more |= {"lm_head.weight": torch.ones(64, 256)}
    names = sorted(tensors | more)
    shards = {"model-00001-of-00002.safetensors": names[::2]}
    shards["model-00002-of-00002.safetensors"] = names[1::2]
    for name, inside in shards.items():
        save_file({n: (tensors | more)[n] for n in inside}, folder / name)
    index = {"weight_map": {n: name for name, inside in shards.items() for n in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def publish(model: NsarmModel, encoder: Path, folder: Path) -> list[Path]:
    """Write all files of a model flat: the transformer, the autoencoder, the text encoder."""
    folder.mkdir()
    torch.save(transformer_tensors(model), folder / "NSARM.pth")
    torch.save({"vae": autoencoder_tensors(model)}, folder / "vae.pth")
    return [folder / "NSARM.pth", folder / "vae.pth", save_t5(encoder, folder / "flan-t5")]

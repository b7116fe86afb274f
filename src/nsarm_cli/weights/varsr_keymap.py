"""Names and layouts of VARSR's published checkpoints, and ours.

The authors publish two files: the tokenizer (`VQVAE.pth`), and everything else (`VARSR.pth`).
Every learned tensor of either stands for exactly one of ours.
"""

import re
from collections.abc import Mapping

import torch

from nsarm_cli.models.varsr.config import VarsrConfig
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.tokenizer import TokenizerConfig
from nsarm_cli.weights.keymap import AnyTensor, NameTable, translate

# Ours: the authors'. An entry stands for one name or for all names that continue it.
_WHOLE = {
    "labels": "class_emb",
    "prefix": "con_embedding",
    "transformer.start": "pos_start",
    "transformer.word_embedding": "word_embed",
    "transformer.scale_embedding": "lvl_embed",
    "transformer.head.modulation": "head_nm.ada_lin.1",
    "transformer.head.out": "head",
    "refiner.norm": "decoder_norm",
    "refiner.time": "diffloss.net.time_embed.mlp",
    "refiner.condition": "diffloss.net.cond_embed",
    "refiner.lift": "diffloss.net.input_proj",
    "refiner.modulation": "diffloss.net.final_layer.adaLN_modulation.1",
    "refiner.out": "diffloss.net.final_layer.linear",
}
_IN_BLOCK = {
    "modulation": "ada_lin.1",
    "attention.log_temperature": "attn.scale_mul_1H11",
    "attention.qkv": "attn.mat_qkv",
    "attention.q_bias": "attn.q_bias",
    "attention.v_bias": "attn.v_bias",
    "attention.out": "attn.proj",
    "feed_forward.up": "ffn.fc1",
    "feed_forward.down": "ffn.fc2",
}
_IN_REFINER_BLOCK = {
    "norm": "in_ln",
    "up": "mlp.0",
    "down": "mlp.2",
    "modulation": "adaLN_modulation.1",
}
_IN_TOKENIZER = {
    "before": "quant_conv",
    "after": "post_quant_conv",
    "quantiser.codebook": "quantize.embedding",
    "quantiser.blends": "quantize.quant_resi.qresi_ls",
    "encoder": "encoder",
    "decoder": "decoder",
}
_IN_LAYER = {"shortcut": "nin_shortcut", "out": "proj_out"}

COMPUTED = ("lvl_1L", "attn_bias_for_masking", "quantize.ema_vocab_hit_SV")
"""Not learned: the level of each token, its attention mask (42 MB), how often codes were used."""

_BLOCK = re.compile(r"transformer\.blocks\.(\d+)\.(.+)")
_REFINER_BLOCK = re.compile(r"refiner\.blocks\.(\d+)\.(.+)")
_LEVEL = re.compile(r"(encoder|decoder)\.levels\.(\d+)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"(encoder|decoder)\.middle\.(\d+)\.(.+)")
_TOKENIZER = "tokenizer."


def model_from_upstream(
    tensors: Mapping[str, AnyTensor], config: VarsrConfig, source: str
) -> dict[str, AnyTensor]:
    """Rename the file with everything but the tokenizer, of either of VARSR's models.

    Args:
        tensors: by the authors' names.
        config: of the model.
        source: the file, for messages.

    Returns:
        Tensors by the names of `VarsrModel`, sharing memory with those given.

    Raises:
        WeightsError: names unknown, missing and misshapen entries.
    """
    return _model_file(config).rename(_learned(tensors), source)


def tokenizer_from_upstream(
    tensors: Mapping[str, AnyTensor], config: VarsrConfig, source: str
) -> dict[str, AnyTensor]:
    """Rename the file with the tokenizer; see `model_from_upstream`."""
    return _tokenizer_file(config).rename(_learned(tensors), source)


def _learned(tensors: Mapping[str, AnyTensor]) -> dict[str, AnyTensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in COMPUTED}


def _model_file(config: VarsrConfig) -> NameTable:
    our_shapes = {n: s for n, s in _our_shapes(config).items() if not n.startswith(_TOKENIZER)}
    ours = {_model_name(name): name for name in our_shapes}
    shapes = {
        name: (1, *our_shapes[o], 1, 1) if name.endswith("scale_mul_1H11") else our_shapes[o]
        for name, o in ours.items()
    }
    # Keys have no bias; the authors store zeros beside every bias of the values.
    constants = {
        name.replace("v_bias", "zero_k_bias"): torch.zeros(shape)
        for name, shape in shapes.items()
        if name.endswith("v_bias")
    }
    return NameTable(ours, shapes, our_shapes, constants)


def _tokenizer_file(config: VarsrConfig) -> NameTable:
    our_shapes = {n: s for n, s in _our_shapes(config).items() if n.startswith(_TOKENIZER)}
    ours = {
        _tokenizer_name(name.removeprefix(_TOKENIZER), config.tokenizer): name
        for name in our_shapes
    }
    shapes = {name: our_shapes[o] for name, o in ours.items()}
    return NameTable(ours, shapes, our_shapes, {})


def _our_shapes(config: VarsrConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = VarsrModel(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _model_name(ours: str) -> str:
    if found := _BLOCK.fullmatch(ours):
        return f"blocks.{found[1]}.{translate(found[2], _IN_BLOCK)}"
    if found := _REFINER_BLOCK.fullmatch(ours):
        return f"diffloss.net.res_blocks.{found[1]}.{translate(found[2], _IN_REFINER_BLOCK)}"
    return translate(ours, _WHOLE)


def _tokenizer_name(ours: str, config: TokenizerConfig) -> str:
    if found := _MIDDLE.fullmatch(ours):
        part = ("block_1", "attn_1", "block_2")[int(found[2])]
        return f"{found[1]}.mid.{part}.{_layer_name(found[3])}"
    if not (found := _LEVEL.fullmatch(ours)):
        return translate(ours, _IN_TOKENIZER)
    side, level, place = found[1], int(found[2]), int(found[3])
    deepest = len(config.multipliers) - 1
    if side == "encoder":
        name, change, blocks = f"down.{level}", "downsample", config.encoder_blocks
        attends = level == deepest
    else:  # the authors count the decoder's levels from the picture, we from the latents
        name, change, blocks = f"up.{deepest - level}", "upsample", config.decoder_blocks
        attends = level == 0
    if attends and place < 2 * blocks:
        layer = f"{'attn' if place % 2 else 'block'}.{place // 2}"
    else:
        layer = change if place >= blocks else f"block.{place}"
    return f"{side}.{name}.{layer}.{_layer_name(found[4])}"


def _layer_name(ours: str) -> str:
    first, rest = ours.split(".", 1)
    return f"{_IN_LAYER.get(first, first)}.{rest}"

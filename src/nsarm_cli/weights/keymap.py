"""Names and layouts of the authors' checkpoints, and ours.

The authors publish two files: the transformer with the transformation network, and the
autoencoder. Every name of either stands for exactly one of ours; nothing is loaded that
has no place, and nothing is left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.nsarm.autoencoder import AutoencoderConfig
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.weights.stored import StoredTensor
from nsarm_cli.weights.strict import check_tensors

AnyTensor = TypeVar("AnyTensor", Tensor, StoredTensor)
"""A file is renamed in memory, or where it lies."""

BLOCKS_PER_CHUNK = 5
"""NSARM-8B numbers its 40 blocks as 8 chunks of 5."""

# Ours: the authors'. An entry stands for one name or for all names that continue it.
_WHOLE = {
    "conditioner.unconditional": "cfg_uncond",
    "conditioner.norm": "text_norm",
    "conditioner.pool.query": "text_proj_for_sos.ca.mat_q",
    "conditioner.pool.kv": "text_proj_for_sos.ca.mat_kv",
    "conditioner.pool.v_bias": "text_proj_for_sos.ca.v_bias",
    "conditioner.pool.out": "text_proj_for_sos.ca.proj",
    "conditioner.lift": "text_proj_for_ca.0",
    "conditioner.out": "text_proj_for_ca.2",
    "transformer.start": "pos_start",
    "transformer.word_embedding": "word_embed",
    "transformer.scale_embedding": "lvl_embed",
    "transformer.signal": "shared_ada_lin.1",
    "transformer.head.modulation": "head_nm.ada_lin.1",
    "transformer.head.out": "head",
    "transformation.trunk": "map_transformer.feature_extractor",
}
_IN_BLOCK = {
    "modulation.offset": "ada_gss",
    "attention.log_temperature": "sa.scale_mul_1H11",
    "attention.qkv": "sa.mat_qkv",
    "attention.q_bias": "sa.q_bias",
    "attention.v_bias": "sa.v_bias",
    "attention.out": "sa.proj",
    "cross.q": "ca.mat_q",
    "cross.kv": "ca.mat_kv",
    "cross.v_bias": "ca.v_bias",
    "cross.out": "ca.proj",
    "cross_norm": "ca_norm",
    "feed_forward.up": "ffn.fc1",
    "feed_forward.down": "ffn.fc2",
}
_IN_BRANCH = {
    "lift": "map_transformer.feature_transforms.{}",
    "layers": "map_transformer.transformers.{}.layers",
    "out": "map_transformer.output_projs.{}",
}

_BLOCK = re.compile(r"transformer\.blocks\.(\d+)\.(.+)")
_BRANCH = re.compile(r"transformation\.branches\.(\d+)\.(\w+)\.(.+)")
_LEVEL = re.compile(r"(encoder|decoder)\.levels\.(\d+)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"(encoder|decoder)\.middle\.(\d+)\.(.+)")
_CHUNKED = re.compile(r"block_chunks\.\d+\.module\.(\d+)\.")
# The authors' module wraps each convolution and norm; its names repeat "conv" or "norm".
_WRAPPED = re.compile(r"(\.(?:conv\w*|norm\w*|nin_shortcut))\.(?:conv|norm)(?=\.\w+$)")
_AUTOENCODER = "autoencoder."


@dataclass(frozen=True)
class NameTable:
    """What one of the authors' files holds.

    Attributes:
        ours: our name by the authors'.
        shapes: the authors' shapes by the authors' name, and ours by ours.
        constants: entries that are not learned and that we compute without; they may be absent.
    """

    ours: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    our_shapes: dict[str, tuple[int, ...]]
    constants: dict[str, Tensor]

    def rename(self, tensors: Mapping[str, AnyTensor], source: str) -> dict[str, AnyTensor]:
        """From the authors' names to ours; raises a WeightsError that names what differs."""
        learned = {name: t for name, t in tensors.items() if name not in self.constants}
        check_tensors(self.shapes, learned, source)
        for name, constant in self.constants.items():
            if name in tensors and not _agree(tensors[name], constant):
                raise WeightsError(
                    f"{source}: {name} is not the constant the authors' code puts there; "
                    "the file is damaged or of another model"
                )
        return {
            ours: learned[name].reshape(self.our_shapes[ours]) for name, ours in self.ours.items()
        }

    def restore(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """From our names to the authors', with the constants; other tensors are passed over."""
        given = {name: t for name, t in tensors.items() if name in self.our_shapes}
        check_tensors(self.our_shapes, given, source)
        restored = {
            name: given[ours].reshape(self.shapes[name]) for name, ours in self.ours.items()
        }
        return restored | self.constants


def transformer_from_upstream(
    tensors: Mapping[str, AnyTensor], config: NsarmConfig, source: str
) -> dict[str, AnyTensor]:
    """Rename the file with the transformer, its conditioner and the transformation network.

    Args:
        tensors: by the authors' names. Chunks of any equal size are understood.
        config: of a model with a text conditioner.
        source: the file, for messages.

    Returns:
        Tensors by the names of `NsarmModel`, sharing memory with those given.

    Raises:
        WeightsError: names unknown, missing and misshapen entries.
    """
    places = [int(found[1]) for name in tensors if (found := _CHUNKED.match(name))]
    blocks_per_chunk = max(places) + 1 if places else BLOCKS_PER_CHUNK
    return _transformer_file(config, blocks_per_chunk).rename(tensors, source)


def transformer_to_upstream(
    tensors: Mapping[str, Tensor],
    config: NsarmConfig,
    source: str,
    blocks_per_chunk: int = BLOCKS_PER_CHUNK,
) -> dict[str, Tensor]:
    """Undo `transformer_from_upstream`; the autoencoder's tensors are passed over.

    Raises:
        WeightsError: names missing and misshapen tensors.
    """
    return _transformer_file(config, blocks_per_chunk).restore(tensors, source)


def autoencoder_from_upstream(
    tensors: Mapping[str, AnyTensor], config: NsarmConfig, source: str
) -> dict[str, AnyTensor]:
    """Rename the file with the autoencoder.

    Args:
        tensors: by the authors' names in either spelling.
        config: of the model the autoencoder belongs to.
        source: the file, for messages.

    Returns:
        Tensors by the names of `NsarmModel`, sharing memory with those given.

    Raises:
        WeightsError: names unknown, missing and misshapen entries.
    """
    plain: dict[str, AnyTensor] = {}
    for name, tensor in tensors.items():
        short = _WRAPPED.sub(r"\1", name)
        if short in plain:
            raise WeightsError(
                f"{source}: has {short} in both spellings of the name; remove one of them"
            )
        plain[short] = tensor
    return _autoencoder_file(config).rename(plain, source)


def autoencoder_to_upstream(
    tensors: Mapping[str, Tensor], config: NsarmConfig, source: str
) -> dict[str, Tensor]:
    """Undo `autoencoder_from_upstream`, in the shorter spelling; other tensors are passed over.

    Raises:
        WeightsError: names missing and misshapen tensors.
    """
    return _autoencoder_file(config).restore(tensors, source)


def _transformer_file(config: NsarmConfig, blocks_per_chunk: int) -> NameTable:
    our_shapes = {n: s for n, s in _our_shapes(config).items() if not n.startswith(_AUTOENCODER)}
    ours = {_transformer_name(name, blocks_per_chunk): name for name in our_shapes}
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


def _autoencoder_file(config: NsarmConfig) -> NameTable:
    our_shapes = {n: s for n, s in _our_shapes(config).items() if n.startswith(_AUTOENCODER)}
    ours = {
        _autoencoder_name(name.removeprefix(_AUTOENCODER), config.autoencoder): name
        for name in our_shapes
    }
    shapes = {name: our_shapes[o] for name, o in ours.items()}
    mask = 2.0 ** torch.arange(config.autoencoder.channels - 1, -1, -1)
    constants = {f"{module}.lfq.mask": mask for module in ("quantizer", "quantize")}
    return NameTable(ours, shapes, our_shapes, constants)


def _our_shapes(config: NsarmConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = NsarmModel(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _transformer_name(ours: str, blocks_per_chunk: int) -> str:
    if found := _BLOCK.fullmatch(ours):
        chunk, place = divmod(int(found[1]), blocks_per_chunk)
        return f"block_chunks.{chunk}.module.{place}.{translate(found[2], _IN_BLOCK)}"
    if found := _BRANCH.fullmatch(ours):
        return f"{_IN_BRANCH[found[2]].format(found[1])}.{found[3]}"
    return translate(ours, _WHOLE)


def _autoencoder_name(ours: str, config: AutoencoderConfig) -> str:
    if found := _MIDDLE.fullmatch(ours):
        return f"{found[1]}.mid.block_{int(found[2]) + 1}.{found[3]}"
    if not (found := _LEVEL.fullmatch(ours)):
        return ours
    side, level, place = found[1], int(found[2]), int(found[3])
    rest = found[4].replace("shortcut", "nin_shortcut")
    if side == "encoder":
        name, change, blocks = f"down.{level}", "downsample", config.encoder_blocks
    else:  # the authors count the decoder's levels from the picture, we from the latents
        level = len(config.multipliers) - 1 - level
        name, change, blocks = f"up.{level}", "upsample", config.decoder_blocks
    return f"{side}.{name}.{f'block.{place}' if place < blocks else change}.{rest}"


def translate(name: str, table: Mapping[str, str]) -> str:
    """Replace the beginning of a name by the first entry that it equals or continues."""
    for ours, theirs in table.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"{name} has no counterpart in the authors' models")


def _agree(tensor: Tensor | StoredTensor, constant: Tensor) -> bool:
    if tuple(tensor.shape) != tuple(constant.shape):
        return False
    if isinstance(tensor, StoredTensor):
        tensor = tensor.read()
    return tensor.is_meta or torch.equal(tensor.double().cpu(), constant.double())

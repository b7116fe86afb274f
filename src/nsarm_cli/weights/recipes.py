"""The models that can be made from published files."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.nsarm.config import PRESETS as NSARM_PRESETS
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel, cast_for_inference
from nsarm_cli.models.varsr.config import PRESETS as VARSR_PRESETS
from nsarm_cli.models.varsr.config import VarsrConfig
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.model import cast_for_inference as cast_varsr
from nsarm_cli.weights.keymap import autoencoder_from_upstream, transformer_from_upstream
from nsarm_cli.weights.recipe import Part, Recipe
from nsarm_cli.weights.stored import StoredTensor
from nsarm_cli.weights.varsr_keymap import model_from_upstream, tokenizer_from_upstream

PROMPT = "A high-quality image with harmonious colors and rich details."
"""The fixed prompt of NSARM (arXiv 2510.00820, Table 3); captions give nearly equal results."""

_UNPUBLISHED = {"tiny", "wide"}
"""NSARM at sizes for trials, of which nobody publishes weights."""


def find_recipe(name: str) -> Recipe:
    """Look up how a model is made.

    Raises:
        WeightsError: nothing is known of it.
    """
    nsarm = (c for c in NSARM_PRESETS.values() if c.text_width and c.name not in _UNPUBLISHED)
    known = {
        **{c.name: partial(nsarm_recipe, c) for c in nsarm},
        **{c.name: partial(varsr_recipe, c) for c in VARSR_PRESETS.values()},
    }
    if name not in known:
        raise WeightsError(
            f"model {name!r} cannot be converted: the ones that can are {', '.join(known)}"
        )
    return known[name]()


def nsarm_recipe(config: NsarmConfig) -> Recipe:
    """How an NSARM model with a text conditioner is made.

    The authors publish the transformer with the transformation network, flat or inside the file
    of their trainer, and take the autoencoder and the text encoder from Infinity and Flan-T5.
    """

    def transformer(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, StoredTensor]:
        return transformer_from_upstream(tensors, config, source)

    def autoencoder(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, StoredTensor]:
        return autoencoder_from_upstream(tensors, config, source)

    return Recipe(
        name=config.name,
        family="nsarm",
        config=config.to_dict(),
        parts=(
            Part(
                "transformer",
                "the transformer (NSARM.pth, or its parts NSARM_part_*)",
                (("trainer", "gpt_fsdp"), ()),
                ("word_embed.weight", "pos_start", "cfg_uncond", "head.weight"),
                transformer,
            ),
            Part(
                "vae",
                "the autoencoder (infinity_vae_d56_f8_14_patchify.pth)",
                (("vae",), ()),
                tuple(
                    f"{side}.{layer}.{inner}weight"
                    for side in ("encoder", "decoder")
                    for layer in ("conv_in", "conv_out")
                    for inner in ("", "conv.")
                ),
                autoencoder,
            ),
        ),
        layout=partial(_layout, config),
        text_width=config.text_width,
        prompt=PROMPT,
    )


def varsr_recipe(config: VarsrConfig) -> Recipe:
    """How a VARSR model is made of the tokenizer and the rest, both files of a trainer.

    The model of classes, which VARSR's training starts from, is published beside the same
    tokenizer. Each of the two transformers is refused where the other is wanted, by its names.
    """
    published = "VARSR.pth" if config.prefix else "VARSR_C2I.pth"

    def others(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, StoredTensor]:
        return model_from_upstream(tensors, config, source)

    def tokenizer(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, StoredTensor]:
        return tokenizer_from_upstream(tensors, config, source)

    return Recipe(
        name=config.name,
        family="varsr",
        config=config.to_dict(),
        parts=(
            Part(
                "transformer",
                f"the transformer ({published})",
                (("trainer", "var_wo_ddp"), ()),
                ("word_embed.weight", "pos_start", "class_emb.weight", "head.weight"),
                others,
            ),
            Part(
                "vae",
                "the tokenizer (VQVAE.pth)",
                (("trainer", "vae_local"), ()),
                ("quantize.embedding.weight", "encoder.conv_in.weight", "decoder.conv_in.weight"),
                tokenizer,
            ),
        ),
        layout=partial(_varsr_layout, config),
    )


def _varsr_layout(config: VarsrConfig, dtype: torch.dtype) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        model = VarsrModel(config)
    return cast_varsr(model, dtype).state_dict()


def _layout(config: NsarmConfig, dtype: torch.dtype) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        model = NsarmModel(config)
    return cast_for_inference(model, dtype).state_dict()

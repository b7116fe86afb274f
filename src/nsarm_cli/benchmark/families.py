"""Presets of every family as subjects, with random weights made where they are needed."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from nsarm_cli.benchmark.subject import Stage, Subject
from nsarm_cli.errors import WeightsError
from nsarm_cli.models.interface import SuperResolver
from nsarm_cli.models.nsarm.config import PRESETS as NSARM_PRESETS
from nsarm_cli.models.nsarm.config import NsarmConfig
from nsarm_cli.models.nsarm.model import NsarmModel, cast_for_inference
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver
from nsarm_cli.models.varsr.config import PRESETS as VARSR_PRESETS
from nsarm_cli.models.varsr.config import VarsrConfig
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.model import cast_for_inference as cast_varsr
from nsarm_cli.models.varsr.resolver import VarsrResolver

PROMPT_TOKENS = 64
"""Length of the made-up prompt; a one-sentence caption is shorter."""

META = torch.device("meta")
"""A subject built here has shapes and no numbers."""

_SEED = 0
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

Builder = Callable[[torch.device, torch.dtype], Subject]


def builders() -> dict[str, Builder]:
    """What builds each preset that enlarges pictures, by its name."""
    return {
        **{config.name: partial(_nsarm, config) for config in NSARM_PRESETS.values()},
        **{
            config.name: partial(_varsr, config)
            for config in VARSR_PRESETS.values()
            if config.prefix
        },
    }


def build_subject(name: str, device: torch.device, dtype: torch.dtype) -> Subject:
    """Build a preset with random weights, without files and without a second copy.

    Args:
        name: of the preset.
        device: where it will run; `META` takes no memory.
        dtype: of its convolutions and block weights.

    Raises:
        WeightsError: no preset has this name.
    """
    known = builders()
    if name not in known:
        raise WeightsError(f"preset {name!r} is unknown: the known ones are {', '.join(known)}")
    return known[name](device, dtype)


def subject_of(resolver: SuperResolver) -> Subject | None:
    """See a loaded model as a subject; None for a family whose stages are not known."""
    if isinstance(resolver, NsarmResolver):
        return _nsarm_subject(resolver)
    if isinstance(resolver, VarsrResolver):
        return _varsr_subject(resolver)
    return None


def fill_randomly(model: nn.Module, generator: torch.Generator) -> None:
    """Give every parameter numbers that keep activations finite and ordinary.

    Norms become the identity, other vectors zero, and what multiplies is normal with variance
    1 / fan-in.

    Args:
        model: allocated on a device; its contents do not matter.
        generator: on the same device.
    """
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, _NORMS):
                    parameter.fill_(float(name == "weight"))
                elif parameter.ndim == 1:
                    parameter.zero_()
                else:
                    parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)


def _nsarm(config: NsarmConfig, device: torch.device, dtype: torch.dtype) -> Subject:
    with META:
        model = NsarmModel(config)
    # Cast while there is nothing to cast: each number is then made in its final type.
    cast_for_inference(model, dtype).requires_grad_(requires_grad=False).eval()
    prompt = None
    if config.text_width is not None:
        prompt = torch.empty(PROMPT_TOKENS, config.text_width, device=device)
    if device != META:
        model.to_empty(device=device)
        _randomise(model, prompt, device)
    return _nsarm_subject(
        NsarmResolver(model) if prompt is None else NsarmTextResolver(model, prompt)
    )


def _nsarm_subject(resolver: NsarmResolver) -> Subject:
    model, config = resolver.model, resolver.config
    schedule, known = config.schedule, config.preliminary
    scales = zip(schedule.tokens[known:], schedule.lengths[known:], strict=True)
    stages = (
        Stage("encode", ends=model.autoencoder.encoder),
        Stage("transformation", ends=model.transformation),
        Stage("prefill", tokens=schedule.offsets[known]),
        *(Stage(f"scale {h}x{w}", tokens=length) for (h, w), length in scales),
        Stage("decode"),
    )
    return Subject(resolver, model, stages)


def _varsr(config: VarsrConfig, device: torch.device, dtype: torch.dtype) -> Subject:
    with META:
        model = VarsrModel(config)
    cast_varsr(model, dtype).requires_grad_(requires_grad=False).eval()
    if device != META:
        model.to_empty(device=device)
        _randomise(model, None, device)
    return _varsr_subject(VarsrResolver(model))


def _varsr_subject(resolver: VarsrResolver) -> Subject:
    model, config = resolver.model, resolver.config
    schedule = config.schedule
    scales = zip(schedule.tokens, schedule.lengths, strict=True)
    stages = (
        Stage("prefix", ends=model.prefix),
        *(Stage(f"scale {h}x{w}", tokens=length) for (h, w), length in scales),
        Stage("refiner", ends=model.refiner, runs=config.sampling.refiner_steps),
        Stage("decode"),
    )
    return Subject(resolver, model, stages)


def _randomise(model: nn.Module, prompt: Tensor | None, device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(_SEED)
    fill_randomly(model, generator)
    if prompt is not None:
        prompt.normal_(generator=generator)

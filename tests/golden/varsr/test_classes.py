"""The model of classes that VARSR starts from, against the authors' code."""

from dataclasses import replace

import pytest
import torch

from nsarm_cli.models.core.generate import Guidance, generate
from nsarm_cli.models.varsr.codec import IndexCodec
from nsarm_cli.models.varsr.config import VARSR_CLASSES
from nsarm_cli.models.varsr.diffusion import Diffusion, spaced
from nsarm_cli.training.varsr_losses import RefinerDraws, varsr_losses

CLASSES = 5


@pytest.fixture(scope="session")
def classes_model(small_case, make_varsr, varsr_tensors, varsr_recipe):
    small = small_case.model.config
    config = replace(
        VARSR_CLASSES,
        name="small",
        sides=small.sides,
        tokenizer=small.tokenizer,
        transformer=replace(small.transformer, prefix=0),
        refiner=small.refiner,
        labels=CLASSES + 1,
        overlap=small.overlap,
        sampling=small.sampling,
    )
    tensors = {n: t for n, t in varsr_tensors("small").items() if "con_embedding" not in n}
    for name, shape in (("class_emb.weight", (CLASSES + 1, 64)), ("pos_start", (1, 1, 64))):
        tensors[name] = torch.from_numpy(varsr_recipe.tensor(name, shape))
    return make_varsr(config, tensors)


def test_logits_and_refiner_loss_are_the_recorded_ones(
    classes_model, small_case, golden, varsr_recipe
):
    recorded, schedule = golden("varsr/small_c2i"), classes_model.config.schedule
    tokens = classes_model.tokenizer.quantiser.tokenise(
        small_case.recorded("tokenizer")["f"], schedule.latents
    )
    condition = classes_model.condition(recorded["labels"].long(), None)
    noise = torch.from_numpy(varsr_recipe.gaussian("noise.c2i.0", (128, 8))).float()
    times = abs(varsr_recipe.gaussian("timestep.c2i", (128,))) * 400
    draws = RefinerDraws(torch.from_numpy(times).long() % 1000, noise)
    losses = varsr_losses(classes_model, condition, tokens, draws)
    assert recorded.difference("logits", losses.logits) < 1e-4
    assert recorded.difference("diff_loss", losses.refiner) < 1e-4


@pytest.mark.parametrize(
    ("name", "strengths"),
    [
        ("image01_crop", [1.5 * (k / 3) ** 2 for k in range(4)]),
        ("image01_later_upstream_crop", [1.5 * (k + 1) / 3 for k in range(4)]),
    ],
)
def test_pictures_of_classes_are_the_recorded_ones(
    name, strengths, classes_model, golden, recorded_noise
):
    """Led away from no class, by two schedules that the authors have used."""
    recorded, model = golden("varsr/small_c2i"), classes_model
    schedule, codec = model.config.schedule, IndexCodec(model.tokenizer.quantiser)
    labels = torch.tensor([3, 2, CLASSES, CLASSES])
    generated = generate(
        model.transformer,
        schedule,
        model.pyramid,
        codec,
        known=[],
        condition=model.transformer.prepare(model.condition(labels, None)),
        rope=model.transformer.rope(schedule, torch.device("cpu")),
        generators=[torch.Generator()] * 2,
        sampling=model.config.sampling,
        guidance=Guidance(tuple(1 + strength for strength in strengths), layer=0),
    )
    codes = codec.to_tokens(codec.to_codes(generated.symbols, schedule.latents[-1]))
    residual = model.refiner.sample(
        model.refiner_conditions(generated.hidden, codes),
        Diffusion.over(spaced(10)),
        recorded_noise("c2i.infer", [(32, 8)] + [(64, 8)] * 10, (2, 16, 8)),
        strengths[-1],
    )
    picture = (model.decode(model.refined(generated.feature, residual)) + 1) / 2
    assert recorded.difference(name, picture[:, :, 24:40, 24:40]) < 1e-4

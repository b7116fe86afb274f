"""The model of classes that VARSR starts from, against the authors' code."""

from dataclasses import replace

import pytest
import torch

from nsarm_cli.models.varsr.config import VARSR_CLASSES
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

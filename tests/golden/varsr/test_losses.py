"""All scales at once, the losses of training and their gradients, against the authors' code."""

import gzip
import json

import pytest
import torch
from tests.published_varsr import model_to_upstream

from nsarm_cli.training.varsr_losses import RefinerDraws, varsr_losses

TOLERANCE = 1e-4


@pytest.fixture
def draws(varsr_recipe):
    """Make the recorded timesteps and noise of a training step."""

    def make(name: str, rows: int) -> RefinerDraws:
        noise = torch.from_numpy(varsr_recipe.gaussian(f"noise.{name}.0", (rows, 8)))
        times = abs(varsr_recipe.gaussian(f"timestep.{name}", (rows,))) * 400
        return RefinerDraws(torch.from_numpy(times).long() % 1000, noise.float())

    return make


def losses_of(case, draws):
    model = case.model
    config = model.config
    tokens = model.tokenizer.quantiser.tokenise(
        case.recorded("tokenizer")["f"], config.schedule.latents
    )
    labels = torch.arange(len(case.hr))
    condition = model.condition(labels, model.prefix_tokens(case.lr))
    cells = len(case.hr) * config.schedule.lengths[-1]
    return varsr_losses(model, condition, tokens, draws(f"{config.name}.teacher", 4 * cells))


def test_logits_and_losses_are_the_recorded_ones(case, draws):
    recorded, losses = case.recorded("teacher"), losses_of(case, draws)
    small = case.model.config.name == "small"
    logits = losses.logits if small else losses.logits[:, ::4]
    assert recorded.difference("logits" if small else "logits_every4", logits) < TOLERANCE
    assert recorded.difference("ce", losses.tokens) < 1e-5
    assert recorded.difference("diff_loss", losses.refiner) < 1e-4
    assert recorded.difference("loss", losses.tokens + 2 * losses.refiner) < 3e-4


def test_gradients_are_the_recorded_ones(small_case, make_varsr, draws, varsr_data):
    """Of every parameter the norm, of some all numbers."""
    with gzip.open(varsr_data / "grad_norms.json.gz") as file:
        norms = json.load(file)
    model = make_varsr(small_case.model.config)
    model.requires_grad_(requires_grad=True)
    model.tokenizer.requires_grad_(requires_grad=False)
    with torch.enable_grad():
        case = type(small_case)(model, small_case.hr, small_case.lr, small_case.recorded)
        losses = losses_of(case, draws)
        (losses.tokens + 2 * losses.refiner).backward()
    ours = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    gradients = model_to_upstream(ours, model.config, "gradients")
    recorded = small_case.recorded("teacher")
    assert norms.keys() == {name for name in gradients if not name.endswith("zero_k_bias")}
    for name, norm in norms.items():
        assert float(gradients[name].norm()) == pytest.approx(norm, rel=1e-3), name
        if f"grad.{name}" in recorded.tensors or f"grad.{name}.sub" in recorded.tensors:
            assert recorded.difference(f"grad.{name}", gradients[name]) < 1e-3 * norm, name

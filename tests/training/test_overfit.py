"""Eight crops are learned by heart, stage after stage: the shortest proof that a stage works.

A mistake in targets, labels, positions or sampling shows here as pictures that stay bad while
the loss falls.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tests.published_varsr import MICRO_VARSR, make_varsr

from nsarm_cli.degradation.recipe import REALESRGAN_LIGHT
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.resolver import NsarmResolver
from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.models.varsr.quantiser import to_tokens
from nsarm_cli.models.varsr.resolver import VarsrResolver
from nsarm_cli.training.config import PriorConfig, Stage1Config, Stage2Config, TokenizerConfig
from nsarm_cli.training.data import Batch, Batches, Framing
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.order import ShuffledOrder
from nsarm_cli.training.photos import PhotoStore
from nsarm_cli.training.runner import build_stage
from nsarm_cli.training.varsr import VarsrStage
from nsarm_cli.training.varsr_settings import VarsrStageConfig
from nsarm_cli.training.varsr_start import initialise_varsr

CPU = torch.device("cpu")
COMMON = {"crop": 64, "batch": 8, "precision": "fp32"}
CONFIGS = {
    "tokenizer": TokenizerConfig(**COMMON, entropy=0.0),
    "prior": PriorConfig(**COMMON, flip=0.0),
    "stage1": Stage1Config(**COMMON),
    "stage2": Stage2Config(**COMMON, flip=0.0),
}


@pytest.fixture
def eight(photos) -> Batch:
    framing = Framing({1.0: (64, 64)}, recipe=REALESRGAN_LIGHT)
    return Batches(ShuffledOrder(PhotoStore([photos]), 8, 1, 0), framing, 8, 0, 1)[0]


def psnr(one, other) -> float:
    return float(-10 * ((one - other) / 2).square().mean().log10())


def fit(stage, batch_of, steps, lr) -> None:
    """Train a stage on the batches of so many steps."""
    optimizer = torch.optim.AdamW(stage.trained.parameters(), lr=lr, betas=(0.9, 0.97))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    stage.trained.train()
    for step in range(steps):
        stage.loss(batch_of(step), step)[0].backward()
        torch.nn.utils.clip_grad_norm_(stage.trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    stage.module.eval()


def learn(model, name, batch, steps, lr) -> float:
    """Train a stage on one batch; the loss after the last update, in evaluation mode."""
    stage = build_stage(CONFIGS[name], model, CPU)
    fit(stage, lambda _: batch, steps, lr)
    with torch.no_grad():
        return float(stage.loss(batch, 0)[0])


def sampled(model, lr) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(i) for i in range(len(lr))]
    return NsarmResolver(model).resolve(lr, generators, Sampling(temperature=0.0))


def reconstructed(model, hr) -> torch.Tensor:
    """The best that bits can say of the pictures."""
    with torch.no_grad():
        _, codes = model.pyramid.decompose(model.autoencoder.encode(hr), bsq.quantise)
        return model.decode(model.pyramid.compose(codes))


def test_eight_crops_are_learned_stage_by_stage(micro_config, eight):
    """Seen: losses 0.073, 0.0037, 0.034; 22.4 dB through the bits, 20.9 dB sampled."""
    torch.manual_seed(0)
    model = initialise(NsarmModel(micro_config))

    assert learn(model, "tokenizer", eight, 150, 1e-2) < 0.12
    through_bits = psnr(reconstructed(model, eight.hr), eight.hr)
    assert through_bits > 20

    assert learn(model, "stage1", eight, 150, 1e-2) < 0.01
    without_stage_2 = psnr(sampled(model, eight.lr), eight.hr)

    assert learn(model, "stage2", eight, 200, 1e-2) < 0.1
    made = psnr(sampled(model, eight.lr), eight.hr)
    enlarged = F.interpolate(eight.lr, scale_factor=4, mode="bicubic").clamp(-1, 1)
    assert made > 18
    assert made > through_bits - 3.5
    assert made > without_stage_2 + 5
    assert made > psnr(enlarged, eight.hr) + 3


def test_a_prior_learns_the_bits_of_eight_crops(micro, eight):
    """Seen: 0.085, where a coin has 0.69; the first token stays a guess among the eight."""
    assert learn(micro, "prior", eight, 150, 1e-2) < 0.15


def split_evenly(tokenizer, pictures) -> None:
    """Make random weights a fair tokenizer: its entries are some latents of these pictures.

    Latents are small enough for the refiner to make up what the codebook leaves over.
    """
    scale = 0.5 / tokenizer.encode(pictures).std()
    tokenizer.before.weight.mul_(scale)
    tokenizer.before.bias.mul_(scale)
    for blend in tokenizer.quantiser.blends:
        blend.weight.mul_(0.3)
    cells = to_tokens(tokenizer.encode(pictures)).flatten(0, 1)
    codebook = tokenizer.quantiser.codebook.weight
    chosen = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    codebook.copy_(0.7 * cells[chosen[: len(codebook)]])


def test_varsr_learns_good_and_poor_versions_of_four_crops_under_their_labels(eight):
    """Both versions have one low-resolution picture, so that only the label tells them apart.

    Seen: all 30 tokens of each picture right; the error of the latents falls from 0.055 through
    the codebook to 0.025 by the refiner, where their variance is 0.23.
    """
    good, lr = eight.hr[:4], eight.lr[:4]
    poor = F.avg_pool2d(good, 9, 1, 4)
    tokenizer = make_varsr().tokenizer
    split_evenly(tokenizer, torch.cat([good, poor]))
    torch.manual_seed(0)
    model = initialise_varsr(VarsrModel(MICRO_VARSR))
    model.tokenizer = tokenizer
    stage = VarsrStage(model, VarsrStageConfig())
    labels = torch.arange(8) >= 4

    def batch(step: int) -> Batch:
        seeds = torch.arange(8) + 8 * step
        return Batch(torch.cat([good, poor]), lr.repeat(2, 1, 1, 1), seeds=seeds, poor=labels)

    fit(stage, batch, 120, 1e-2)

    resolver = VarsrResolver(model)
    generators = [torch.Generator().manual_seed(i) for i in range(4)]
    coarse = dataclasses.replace(resolver.sampling, guidance=1.0, refiner_steps=0)
    fine = dataclasses.replace(coarse, refiner_steps=10)
    wanted = tokenizer.encode(good)
    tokens = tokenizer.quantiser.tokenise(wanted, MICRO_VARSR.schedule.latents)
    made = resolver.features(lr, generators, coarse)
    torch.testing.assert_close(made, tokens.feature, atol=1e-4, rtol=0)
    refined = resolver.features(lr, generators, fine)
    left = (made - wanted).square().mean()
    assert (refined - wanted).square().mean() < 0.7 * left
    assert left < 0.5 * wanted.var()

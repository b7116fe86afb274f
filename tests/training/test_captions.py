"""Captions reach the transformer, some are dropped, and each belongs to its picture."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.captions import Conditions, StoredFeatures, key_of
from nsarm_cli.training.config import PriorConfig, Stage2Config
from nsarm_cli.training.data import Batch
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.prior import Prior
from nsarm_cli.training.stage2 import Stage2

WIDTH = 128


class Words:
    """Features that spell a text: one token per word."""

    width = WIDTH

    def __init__(self):
        self.asked = []

    @torch.inference_mode()
    def encode(self, prompts):
        self.asked += prompts
        return [torch.stack([word_of(w) for w in p.split()] or [word_of("")]) for p in prompts]


def word_of(word):
    generator = torch.Generator().manual_seed(sum(word.encode()))
    return torch.randn(WIDTH, generator=generator)


@pytest.fixture
def texted(micro_config) -> NsarmModel:
    torch.manual_seed(0)
    transformer = dataclasses.replace(micro_config.transformer, cross=True)
    config = dataclasses.replace(micro_config, text_width=WIDTH, transformer=transformer)
    model = initialise(NsarmModel(config))
    torch.nn.init.normal_(model.conditioner.unconditional)
    torch.nn.init.normal_(model.transformer.head.out.weight, std=0.5)
    return model


def captioned(batch, *captions) -> Batch:
    return dataclasses.replace(batch, captions=captions)


def test_a_batch_is_conditioned_on_its_captions(texted, batch):
    conditions = Conditions(texted, Words(), 0.0, "the prompt")
    made = conditions.of(captioned(batch, "one two", "three"), batch.generators("drop"))
    wanted = texted.conditioner(Words().encode(["one two", "three"]))
    assert torch.equal(made.pooled, wanted.pooled)
    assert torch.equal(made.context, wanted.context)


def test_a_picture_without_a_caption_is_given_the_prompt(texted, batch):
    encoder = Words()
    Conditions(texted, encoder, 0.0, "the prompt").of(captioned(batch, "", "x"), None)
    assert encoder.asked == ["the prompt", "x"]


def test_a_share_of_captions_is_dropped_each_by_its_own_chance(texted, batch):
    many = Batch(
        batch.hr[:1].expand(400, -1, -1, -1),
        None,
        seeds=torch.arange(400),
        captions=("one two",) * 400,
    )
    conditions = Conditions(texted, Words(), 0.1, "the prompt")
    pooled = conditions.of(many, many.generators("drop", 3)).pooled
    kept = conditions.of(captioned(batch, "one two", "x y"), None).pooled[0]
    dropped = (pooled - kept).abs().amax(1) > 1e-3
    assert 20 <= int(dropped.sum()) <= 62
    empty = texted.conditioner([texted.conditioner.unconditional[:2]]).pooled[0]
    torch.testing.assert_close(pooled[dropped.nonzero()[0, 0]], empty, atol=1e-5, rtol=1e-4)
    halves = [conditions.of(h, h.generators("drop", 3)).pooled for h in many.split(2)]
    torch.testing.assert_close(torch.cat(halves), pooled)


def test_without_an_encoder_captions_play_no_part(texted, batch):
    conditions = Conditions(texted, None, 0.5, "the prompt")
    one, other = (conditions.of(b, None) for b in (batch, captioned(batch, "a", "b")))
    assert torch.equal(one.pooled, other.pooled)


@pytest.mark.parametrize(("kind", "stage"), [(Stage2Config, Stage2), (PriorConfig, Prior)])
def test_a_stage_learns_from_captions_and_validates_under_the_prompt(
    kind, stage, texted, batch, tmp_path
):
    config = kind(crop=64, batch=2, caption_drop=0.0, prompt="the prompt")
    encoder = Words()
    made = stage(texted, config, encoder)
    first = made.loss(captioned(batch, "one two", "three"), 0)[0]
    other = made.loss(captioned(batch, "five", "six seven"), 0)[0]
    assert float(first.detach()) != float(other.detach())
    first.backward()
    assert texted.conditioner.lift.weight.grad.any()
    encoder.asked.clear()
    with torch.no_grad():
        made.validate([captioned(batch, "one", "")], tmp_path / "x.png")
    assert "the prompt" in encoder.asked


def test_captions_need_a_model_that_has_text_of_that_width(micro, texted):
    with pytest.raises(ConfigError, match="micro has no text; leave text_encoder and features"):
        Conditions(micro, Words(), 0.1, "x")
    wide = Words()
    wide.width = 64
    with pytest.raises(ConfigError, match="have 64 numbers per token and micro takes 128"):
        Conditions(texted, wide, 0.1, "x")


def test_stored_features_are_found_by_their_text(tmp_path):
    features = {key_of(text): torch.full((2, 8), float(i)) for i, text in enumerate("ab")}
    for number, (key, tensor) in enumerate(features.items()):
        save_file({key: tensor.bfloat16()}, tmp_path / f"features-{number:05d}.safetensors")
    stored = StoredFeatures(tmp_path)
    assert stored.width == 8
    assert [float(f.mean()) for f in stored.encode(["b", "a", "b"])] == [1.0, 0.0, 1.0]
    assert "a" in stored
    assert "c" not in stored
    with pytest.raises(ConfigError, match=r"has no features of the caption 'c'; run nsarm train"):
        stored.encode(["c"])


def test_a_folder_without_features_and_a_damaged_one_are_named(tmp_path):
    with pytest.raises(ConfigError, match="has no features; make them with nsarm train features"):
        StoredFeatures(tmp_path)
    (tmp_path / "features-00000.safetensors").write_bytes(b"damage")
    with pytest.raises(ConfigError, match=r"features-00000\.safetensors: is damaged"):
        StoredFeatures(tmp_path)


def test_two_sources_of_features_exclude_each_other():
    with pytest.raises(ConfigError, match="text_encoder and features are both given"):
        Stage2Config(text_encoder="a", features="b")
    with pytest.raises(ConfigError, match=r"caption_drop is 1\.5; give a probability"):
        Stage2Config(caption_drop=1.5)

"""All scales at once through the transformer, against the authors' code."""

import pytest
import torch

from nsarm_cli.models.core.pyramid import ResidualPyramid, bilinear
from nsarm_cli.models.nsarm.config import NSARM_TINY, NSARM_WIDE
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.training.labels import TeacherForcing, modified_labels
from nsarm_cli.training.losses import bit_cross_entropy
from nsarm_cli.weights.keymap import transformer_from_upstream
from nsarm_cli.weights.strict import load_strictly

SCHEDULE = NSARM_TINY.schedule
FIRST = 7
# Float32 throughout; sums in another order give about 1e-5 after four blocks.
TOLERANCE = 3e-5


@pytest.fixture
def forced(golden, preliminary) -> TeacherForcing:
    target = golden("latents_1024")["photo_a"]
    pyramid = ResidualPyramid(SCHEDULE.latents)
    return modified_labels(target, preliminary, pyramid, patch=2, next_input=bilinear)


@pytest.fixture
def captions(recipe):
    """Make features of two captions of different length."""

    def make(width: int) -> list[torch.Tensor]:
        first = recipe.noise("input.text_features", (12, width))
        second = recipe.noise("input.text_features_b", (7, width))
        return [torch.from_numpy(features) * 0.3 for features in (first, second)]

    return make


def first_inputs(recorded, stage: str) -> list[torch.Tensor]:
    return [recorded[f"{stage}.x.{k}"] for k in range(1, FIRST)]


def test_logits_and_losses_of_all_scales_are_the_recorded_ones(tiny, golden, forced, captions):
    recorded = golden("tiny_tf")
    condition = tiny.conditioner(captions(256)[:1])
    logits = tiny.transformer(forced.inputs, SCHEDULE, condition).split(SCHEDULE.lengths, dim=1)
    for k, scale_logits in enumerate(logits):
        assert recorded.difference(f"tf.logits.{k}", scale_logits) < TOLERANCE
    losses = [bit_cross_entropy(*pair).mean() for pair in zip(logits, forced.labels, strict=True)]
    assert recorded.difference("tf.bit_ce_per_scale", torch.stack(losses)) < 1e-5


def test_a_batch_with_captions_of_two_lengths_gives_the_recorded_logits(tiny, golden, captions):
    labels = golden("labels")
    pairs = zip(first_inputs(labels, "stage2"), first_inputs(labels, "stage2n"), strict=True)
    inputs = [torch.cat(pair) for pair in pairs]
    logits = tiny.transformer(inputs, SCHEDULE, tiny.conditioner(captions(256)))
    assert golden("tiny_tf").difference("tf_b2.logits", logits) < TOLERANCE


def test_the_true_width_gives_the_recorded_logits(upstream_weights, golden, captions):
    """Width 3584 with 28 heads, and 16 heads of 224 in the pooling; two blocks of the 40."""
    transformation = "map_transformer."
    tensors = transformer_from_upstream(
        upstream_weights("wide", without=(transformation,)), NSARM_WIDE, "recipe"
    )
    with torch.device("meta"):
        model = NsarmModel(NSARM_WIDE).eval()
    for part, module in (("conditioner", model.conditioner), ("transformer", model.transformer)):
        own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(part)}
        load_strictly(module, own, "recipe")
    recorded = golden("wide_tf7")
    condition = model.conditioner(captions(2048)[:1])
    assert recorded.difference("sos", condition.pooled) < TOLERANCE
    assert recorded.difference("text_ca", condition.context) < TOLERANCE
    assert recorded.difference("gss", model.transformer.prepare(condition).signal) < TOLERANCE
    logits = model.transformer(first_inputs(golden("labels"), "stage2"), SCHEDULE, condition)
    assert recorded.difference("logits", logits) < TOLERANCE

"""Probabilities and draws of bits, against the authors' code."""

import torch

from nsarm_cli.models.core.sampling import filter_logits
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.codec import BitCodec


def test_probabilities_after_filtering_are_the_recorded_ones(golden):
    recorded = golden("sampling")
    pairs = torch.stack([torch.zeros_like(recorded["diff"]), recorded["diff"]], dim=-1)
    for t, temperature in enumerate(recorded["tau"].tolist()):
        scaled = pairs / temperature
        plain = scaled.softmax(-1)
        assert (plain - recorded["probs_unfiltered"][t]).abs().max() < 1e-6
        for p, top_p in enumerate(recorded["top_p"].tolist()):
            # The authors' 0 turns the filter off, which is 1 here. The numbers were given with
            # two decimals and are stored in float32.
            filtered = filter_logits(scaled, top_k=2, top_p=round(top_p, 6) or 1).softmax(-1)
            assert (filtered - recorded["probs"][t, p]).abs().max() < 1e-6


def test_ties_survive_top_k(golden):
    recorded = golden("sampling")["topk1_ties"]
    kept = recorded.isfinite()
    assert kept.all(-1).any()
    assert not kept.all()
    # The recorded logits with their removed ones made clearly smaller.
    logits = recorded.masked_fill(~kept, -5.0)
    assert torch.equal(filter_logits(logits, top_k=1), recorded)


def test_the_same_seed_draws_the_recorded_bits(golden, recipe):
    logits = torch.from_numpy(recipe.noise("input.sample_logits", (1, 4096, 2))) * 2
    generator = torch.Generator().manual_seed(1)
    codec = BitCodec(channels=1, patch=1)
    bits = codec.draw(logits, Sampling(temperature=1, top_p=0.97), [generator])
    assert torch.equal(bits.flatten(), golden("sampling")["draw_seed1"].flatten().bool())

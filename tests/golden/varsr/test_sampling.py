"""Probabilities after filtering, against the authors' code."""

from nsarm_cli.models.core.sampling import filter_logits


def test_probabilities_after_top_k_and_top_p_are_the_recorded_ones(golden):
    recorded = golden("varsr/topk_topp")
    for top_k, top_p in ((0, 0.9), (1, 0.75), (20, 0.75), (5, 0.0), (64, 0.96)):
        # The authors' 0 turns the filter off, which is 1 here.
        filtered = filter_logits(recorded["logits"], top_k, top_p or 1.0).softmax(-1)
        assert recorded.difference(f"probs.k{top_k}.p{top_p}", filtered) < 1e-6

"""Encoder, vector quantisation over scales and decoder, against the authors' code."""

import torch

from nsarm_cli.models.varsr.quantiser import to_tokens

TOLERANCE = 3e-5


def test_pictures_become_the_recorded_latents(case):
    recorded = case.recorded("tokenizer")
    latents = case.model.tokenizer.encode(case.hr)
    assert recorded.difference("f", latents) < TOLERANCE


def test_latents_split_into_the_recorded_indices_sums_and_inputs(case):
    recorded = case.recorded("tokenizer")
    schedule = case.model.config.schedule
    # From the recorded latents: two codebook entries may be nearly equally far.
    tokens = case.model.tokenizer.quantiser.tokenise(recorded["f"], schedule.latents)
    for k, indices in enumerate(tokens.indices):
        assert torch.equal(indices, recorded[f"idx.s{k}"].long()), k
    inputs = torch.cat(tokens.inputs, dim=1)
    assert recorded.difference("teacher_input_BLC", inputs) < TOLERANCE
    last = to_tokens(tokens.last_residual)
    assert recorded.difference("last_residual_BLC", last) < TOLERANCE
    k = len(schedule) - 1
    assert recorded.difference(f"enc_f_hat.s{k}", tokens.feature) < TOLERANCE


def test_the_sum_decodes_to_the_recorded_picture(case):
    recorded = case.recorded("tokenizer")
    schedule, tokenizer = case.model.config.schedule, case.model.tokenizer
    tokens = tokenizer.quantiser.tokenise(recorded["f"], schedule.latents)
    picture = case.model.decode(tokens.feature)
    if len(schedule) > 4:
        picture = picture[..., ::4, ::4]
    assert recorded.difference("decode.of_enc_f_hat", picture) < TOLERANCE


def test_scales_of_the_small_geometry_sum_up_one_by_one(small_case):
    recorded = small_case.recorded("tokenizer")
    pyramid, quantiser = small_case.model.pyramid, small_case.model.tokenizer.quantiser
    feature = None
    for k, grid in enumerate(pyramid.grids):
        codes = quantiser.codes(recorded[f"idx.s{k}"].long(), grid)
        feature = pyramid.add(feature, codes, k)
        assert recorded.difference(f"enc_f_hat.s{k}", feature) < TOLERANCE

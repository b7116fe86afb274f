"""Prompts become the features that the padded way gives, at a fraction of the work."""

import json
import shutil

import pytest
import torch

from nsarm_cli.errors import WeightsError
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.text.features import LONGEST

CPU = torch.device("cpu")
PROMPTS = ["a red dog", "", "A high quality image with harmonious colors and rich details."]


@pytest.fixture
def encoder(text_encoder_folder) -> TextEncoder:
    return TextEncoder.load(text_encoder_folder, CPU, torch.float32)


def padded(encoder: TextEncoder, prompt: str) -> torch.Tensor:
    """The authors' way: always 512 tokens, of which the real ones are kept."""
    made = encoder._tokenizer(
        [prompt], max_length=LONGEST, padding="max_length", truncation=True, return_tensors="pt"
    )
    assert made["input_ids"].shape == (1, LONGEST)
    with torch.no_grad():
        hidden = encoder._model(**made).last_hidden_state[0]
    return hidden[: int(made["attention_mask"].sum())]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_features_are_those_of_the_padded_way(encoder, prompt):
    (features,) = encoder.encode([prompt])
    expected = padded(encoder, prompt)
    assert features.shape == expected.shape
    # Sums of 512 softmax terms, most of them zero, are rounded in another order.
    torch.testing.assert_close(features, expected, atol=2e-5, rtol=1e-5)
    assert features.std() > 0.1  # not a comparison of zeros


def test_a_prompt_is_as_long_as_its_tokens_and_an_empty_one_is_the_end_alone(encoder):
    lengths = [len(features) for features in encoder.encode(PROMPTS)]
    assert lengths[:2] == [4, 1]
    assert lengths[2] > 4


def test_a_batch_gives_what_each_prompt_gives_alone(encoder):
    together = encoder._features(encoder._tokens(PROMPTS))
    for features, prompt in zip(together, PROMPTS, strict=True):
        (alone,) = encoder.encode([prompt])
        torch.testing.assert_close(features, alone, atol=2e-5, rtol=1e-5)


class Stand(torch.nn.Module):
    """A T5 that says how often and where it was moved, and may refuse."""

    def __init__(self, inner, *, full=False):
        super().__init__()
        self.inner, self.full, self.moves, self.batches = inner, full, [], []

    def to(self, device):
        self.moves.append(str(device))
        if self.full and str(device) != "cpu":
            raise torch.OutOfMemoryError("full")
        return self

    def forward(self, input_ids, attention_mask):
        self.batches.append(tuple(input_ids.shape))
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
def test_on_a_gpu_prompts_share_a_batch_and_the_encoder_leaves_when_done(encoder, full, caplog):
    expected = encoder.encode(PROMPTS)
    stand = Stand(encoder._model, full=full)
    on_gpu = TextEncoder(stand, encoder._tokenizer, torch.device("mps"))
    for features, right in zip(on_gpu.encode(PROMPTS), expected, strict=True):
        torch.testing.assert_close(features, right, atol=2e-5, rtol=1e-5)
    assert stand.moves[0] == "mps"
    assert stand.moves[-1] == "cpu"
    assert len(stand.batches) == (3 if full else 1)
    assert ("does not fit on mps" in caplog.text) is full


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(encoder, caplog):
    (features,) = encoder.encode(["dog " * 600])
    assert len(features) == LONGEST
    assert "601 tokens; the last 89 are left out (it begins 'dog dog" in caplog.text
    torch.testing.assert_close(features, padded(encoder, "dog " * 600), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.bfloat16)],
    ids=["bf16", "fp16"],
)
def test_in_half_precision_what_is_large_stays_float32(text_encoder_folder, asked, stored):
    encoder = TextEncoder.load(text_encoder_folder, CPU, asked)
    kinds = {
        name: parameter.dtype
        for name, parameter in encoder._model.named_parameters()
        if name.endswith(("wo.weight", "final_layer_norm.weight")) or ".wi_0." in name
    }
    assert {d for n, d in kinds.items() if ".wi_0." in n} == {stored}
    assert {d for n, d in kinds.items() if ".wi_0." not in n} == {torch.float32}
    (features,) = encoder.encode(PROMPTS[:1])
    exact = TextEncoder.load(text_encoder_folder, CPU, torch.float32).encode(PROMPTS[:1])[0]
    assert features.dtype == torch.float32
    assert (features - exact).norm() / exact.norm() < 0.02  # bf16 keeps three digits


def test_a_folder_without_an_encoder_is_named(tmp_path):
    for folder, fault in ((tmp_path, "has no text encoder"), (tmp_path / "t5", "no such folder")):
        with pytest.raises(WeightsError, match=rf"{fault}, so prompts cannot be read; try it"):
            TextEncoder.load(folder, CPU, torch.float32, remedy="try it")


@pytest.mark.parametrize("damage", ["config", "weights", "missing"])
def test_damaged_files_are_an_error_and_never_filled_with_chance(
    text_encoder_folder, tmp_path, damage
):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "t5"
    shutil.copytree(text_encoder_folder, folder)
    weights = folder / "model.safetensors"
    if damage == "config":
        (folder / "config.json").write_text(json.dumps([1]))
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        tensors = load_file(weights)
        del tensors["encoder.block.1.layer.0.SelfAttention.q.weight"]
        save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(WeightsError, match="get its files again"):
        TextEncoder.load(folder, CPU, torch.float32)

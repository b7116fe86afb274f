"""A file of features is read whole and right, or refused with the reason."""

import pytest
import torch
from safetensors.torch import save_file

from nsarm_cli.errors import ConfigError
from nsarm_cli.text.features import LONGEST, read_features


def test_features_come_back_as_float32(tmp_path):
    features = torch.randn(7, 12)
    save_file({"features": features.bfloat16()}, tmp_path / "f.safetensors")
    read = read_features(tmp_path / "f.safetensors", 12)
    assert read.dtype == torch.float32
    assert torch.equal(read, features.bfloat16().float())


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"other": torch.zeros(2, 12)}, 'no tensor named "features"'),
        ({"features": torch.zeros(2, 11)}, r"is \(2, 11\) instead of \(1 to 512, 12\)"),
        ({"features": torch.zeros(0, 12)}, r"is \(0, 12\) instead"),
        ({"features": torch.zeros(LONGEST + 1, 12)}, r"is \(513, 12\) instead"),
        ({"features": torch.zeros(1, 2, 12)}, r"is \(1, 2, 12\) instead"),
        ({"features": torch.full((2, 12), float("nan"))}, "not all finite"),
        ({"features": torch.zeros(2, 12, dtype=torch.int32)}, "not all finite floating-point"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused(tmp_path, tensors, reason):
    save_file(tensors, tmp_path / "f.safetensors")
    with pytest.raises(ConfigError, match=reason):
        read_features(tmp_path / "f.safetensors", 12)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors" * 9])
def test_a_missing_or_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "f.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"f\.safetensors: .*cannot be read as safetensors"):
        read_features(path, 12)

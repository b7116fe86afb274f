"""What a T5 text encoder needs in memory, from its configuration."""

from collections.abc import Mapping
from typing import Any

from nsarm_cli.models.core.memory import Network

FLAN_T5_XL: Mapping[str, Any] = {
    "vocab_size": 32128,
    "d_model": 2048,
    "d_kv": 64,
    "d_ff": 5120,
    "num_layers": 24,
    "num_heads": 32,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "gated-gelu",
}
"""The encoder that NSARM-8B was trained with."""


def encoder_network(config: Mapping[str, Any]) -> Network:
    """Count the numbers of an encoder as `text.encoder.TextEncoder` keeps them.

    Args:
        config: as in transformers' `config.json`.

    Raises:
        KeyError: it lacks an entry.
    """
    width, layers = config["d_model"], config["num_layers"]
    inner, hidden = config["num_heads"] * config["d_kv"], config["d_ff"]
    ups = 2 if str(config["feed_forward_proj"]).startswith("gated-") else 1
    plain = config["vocab_size"] * width
    plain += config.get("relative_attention_num_buckets", 32) * config["num_heads"]
    plain += layers * (4 * width * inner + ups * width * hidden + 2 * width)
    wide = layers * hidden * width + width  # the last matrices and the last norm
    return Network("text encoder", plain, wide)

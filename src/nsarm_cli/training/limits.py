"""Which values settings of a training run may have, each by its name, whatever the stage."""

from collections.abc import Mapping
from typing import Any

from nsarm_cli.errors import ConfigError

_AT_LEAST_1 = (
    "steps",
    "batch",
    "crop",
    "shrink",
    "margin",
    "accumulate",
    "keep",
    "validate_every",
    "validate_batches",
    "log_every",
    "per_shard",
    "dists_crop",
)
_AT_LEAST_0 = (
    *("final_lr", "warmup", "refiner", "weight_decay", "seed", "workers", "save_minutes", "pixel"),
    *(
        "corrupt",
        "perceptual",
        "perceptual_from",
        "dists",
        "pattern",
        "commitment",
        "entropy",
        "sharpness",
        "temperature",
    ),
    *("adversarial", "adversarial_from", "anchor", "lora", "lora_scale"),
)

_SHARES = ("ema", "hold", "negatives", "drop_path")
"""Settings in [0, 1)."""

_CHOICES = {
    "precision": ("bf16", "fp32"),
    "decay": ("linear", "cosine"),
    "attention": ("sdpa", "flex"),
    "recompute": ("none", "selective", "full"),
    "framing": ("crop", "whole"),
    "turns": ("all", "mirror", "none"),
    "tracker": ("auto", "tensorboard", "wandb", "trackio", "none"),
}
_LEAST = dict.fromkeys(_AT_LEAST_1, 1) | dict.fromkeys(_AT_LEAST_0, 0)


def check_values(settings: Mapping[str, Any]) -> None:
    """Refuse values that cannot work, and pairs that cannot work together.

    Args:
        settings: of one stage, by name, with all that `RunConfig` has.

    Raises:
        ConfigError: naming the setting, its value and what to give.
    """
    for name, value in settings.items():
        # Written so that NaN fails too.
        if name in _LEAST and not value >= _LEAST[name]:
            raise ConfigError(f"{name} is {value}; give at least {_LEAST[name]}")
        if name in {"lr", "clip"} and not value > 0:
            raise ConfigError(f"{name} is {value}; give a number above 0")
        if name in _SHARES and not 0 <= value < 1:
            raise ConfigError(f"{name} is {value}; give a share in [0, 1)")
    if not all(0 <= beta < 1 for beta in settings["betas"]):
        raise ConfigError(f"betas is {list(settings['betas'])}; give two numbers in [0, 1)")
    for name, choices in _CHOICES.items():
        if settings[name] not in choices:
            known = '" or "'.join(choices)
            raise ConfigError(f'{name} is "{settings[name]}"; choose "{known}"')
    if settings["recompute"] != "selective":
        return
    if settings["attention"] == "flex":
        raise ConfigError(
            'recompute is "selective" and attention is "flex", whose results it would compute '
            'again though they are dear; set recompute to "none" or "full"'
        )
    if settings["compile"]:
        raise ConfigError(
            'recompute is "selective" and compile is on, but compiled blocks choose for '
            'themselves what to compute again; set recompute to "none" or "full"'
        )


def check_ratios(ratios: tuple[float, ...]) -> None:
    """Refuse aspect ratios that are none, or given twice.

    Raises:
        ConfigError: they are.
    """
    if not ratios or len(set(ratios)) != len(ratios):
        raise ConfigError(f"ratios is {list(ratios)}; give at least one, each once")

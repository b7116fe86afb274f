"""Settings of a training run, from one flat TOML file; unknown keys are refused."""

import dataclasses
import difflib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nsarm_cli.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"

_AT_LEAST_1 = ("steps", "batch", "crop", "shrink", "validate_every", "validate_batches")
_AT_LEAST_0 = (
    *("final_lr", "warmup", "weight_decay", "seed", "workers", "save_minutes", "pixel"),
    *("perceptual", "perceptual_from", "commitment", "entropy", "sharpness", "temperature"),
    *("adversarial", "anchor"),
)
_LEAST = dict.fromkeys(_AT_LEAST_1, 1) | dict.fromkeys(_AT_LEAST_0, 0)


@dataclass(frozen=True)
class RunConfig:
    """What every stage has.

    Attributes:
        model: name of a preset configuration, or a model folder to start from.
        steps: updates in all.
        batch: crops per update.
        crop: side of the high-resolution crops, in pixels.
        shrink: crops are taken from pictures reduced by up to this factor.
        degradation: name of the recipe that makes the low-resolution side.
        lr: peak learning rate of AdamW.
        final_lr: learning rate at the end, as a share of the peak.
        warmup: updates of linear warm-up.
        decay: shape of the fall, "linear" or "cosine".
        betas: of AdamW.
        weight_decay: of matrices and kernels only.
        clip: largest norm of the gradient.
        precision: "bf16" computes under autocast with fp32 master weights; or "fp32".
        seed: of data and initial weights.
        workers: processes that prepare batches.
        save_minutes: between checkpoints.
        validate_every: updates between validations.
        validate_batches: batches of the fixed validation set.
    """

    model: str = "nsarm-nano"
    steps: int = 1000
    batch: int = 8
    crop: int = 128
    shrink: float = 2.0
    degradation: str = "realesrgan-light"
    lr: float = 3e-4
    final_lr: float = 0.0
    warmup: int = 100
    decay: str = "linear"
    betas: tuple[float, float] = (0.9, 0.97)
    weight_decay: float = 0.005
    clip: float = 2.0
    precision: str = "bf16"
    seed: int = 0
    workers: int = 1
    save_minutes: float = 5.0
    validate_every: int = 500
    validate_batches: int = 4

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            # Written so that NaN fails too.
            if name in _LEAST and not value >= _LEAST[name]:
                raise ConfigError(f"{name} is {value}; give at least {_LEAST[name]}")
            if name in {"lr", "clip"} and not value > 0:
                raise ConfigError(f"{name} is {value}; give a number above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas is {list(self.betas)}; give two numbers in [0, 1)")
        if self.precision not in {"bf16", "fp32"}:
            raise ConfigError(f'precision is "{self.precision}"; choose "bf16" or "fp32"')
        if self.decay not in {"linear", "cosine"}:
            raise ConfigError(f'decay is "{self.decay}"; choose "linear" or "cosine"')


@dataclass(frozen=True)
class TokenizerConfig(RunConfig):
    """Training of the autoencoder and its bits.

    Attributes:
        pixel: weight of the mean absolute pixel error.
        perceptual: weight of LPIPS; 0 does without.
        perceptual_weights: safetensors file of LPIPS; needed when `perceptual` is above 0.
        perceptual_from: first update that uses LPIPS.
        commitment: weight of the distance of latents to their codes.
        entropy: weight of the entropy terms (sure bits, used bits).
        sharpness: inverse temperature of the soft bits in the entropy terms.
    """

    pixel: float = 1.0
    perceptual: float = 0.0
    perceptual_weights: str = ""
    perceptual_from: int = 0
    commitment: float = 0.25
    entropy: float = 0.02
    sharpness: float = 10.0


@dataclass(frozen=True)
class Stage1Config(RunConfig):
    """Training of the transformation network (NSARM section 3, Eq. 4)."""


@dataclass(frozen=True)
class Stage2Config(RunConfig):
    """Training of the transformer on labels modified by the transformed scales (Alg. 2).

    Attributes:
        flip: largest share of bits flipped per sampled scale (self-correction); 0 is off.
        resize: how the next scale's input is made, "area" as in inference or "bilinear"
            as Infinity was trained.
        reweight: weigh the tokens of each scale by 1/side rather than alike.
    """

    flip: float = 0.1
    resize: str = "area"
    reweight: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize not in {"area", "bilinear"}:
            raise ConfigError(f'resize is "{self.resize}"; choose "area" or "bilinear"')
        if not 0 <= self.flip < 0.5:
            raise ConfigError(f"flip is {self.flip}; give a share from 0 to below 0.5")


@dataclass(frozen=True)
class DecoderConfig(RunConfig):
    """Adaptation of the decoder to the bits that the whole model samples.

    Attributes:
        pixel: weight of the mean absolute pixel error.
        perceptual: weight of LPIPS; 0 does without.
        perceptual_weights: safetensors file of LPIPS; needed when `perceptual` is above 0.
        temperature: of the sampled bits; 0 is greedy.
        adversarial: gradient of a patch discriminator's score at the picture, relative to that
            of the pixel and perceptual terms; 0 does without.
        transformation: the transformation network learns too, from the same losses, through
            the sum of codes as if it were not quantised.
        anchor: weight of stage 1's loss, which then keeps its prediction near the latents.
    """

    pixel: float = 1.0
    perceptual: float = 0.0
    perceptual_weights: str = ""
    temperature: float = 0.5
    adversarial: float = 0.0
    transformation: bool = False
    anchor: float = 1.0


Config = TypeVar("Config", bound=RunConfig)

_TOML_NAMES = {
    bool: "boolean",
    int: "whole number",
    float: "number",
    str: "string",
    tuple: "list of numbers",
}


def read_config(kind: type[Config], source: str | Path) -> Config:
    """Read a TOML file, or a preset by name, into a configuration.

    Raises:
        ConfigError: no such file or preset, not TOML, an unknown key, or a wrong type.
    """
    path = Path(source)
    if not path.is_file():
        preset = PRESETS / f"{source}.toml"
        if not preset.is_file():
            known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
            raise ConfigError(
                f"{source}: no such configuration; give a TOML file or one of {known}"
            )
        path = preset
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML ({error}); correct it") from error
    return _from_table(kind, table, path)


def write_config(config: RunConfig, path: Path) -> None:
    """Write every setting of a run as TOML."""
    lines = [f"{name} = {_toml(value)}" for name, value in dataclasses.asdict(config).items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _from_table(kind: type[Config], table: dict[str, Any], path: Path) -> Config:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"
            raise ConfigError(f"{path}: unknown setting {key}; {hint}")
        values[key] = _checked(fields[key], value, path)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _checked(field: "dataclasses.Field[Any]", value: Any, path: Path) -> Any:
    default: Any = field.default
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is tuple and isinstance(value, list) and len(value) == len(default):
        if all(type(v) in {int, float} for v in value):
            return tuple(float(v) for v in value)
    elif type(value) is wanted:
        return value
    raise ConfigError(
        f"{path}: {field.name} is {value!r}; give a {_TOML_NAMES[wanted]} like {_toml(default)}"
    )


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings escape alike
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(value)

"""Read and write the settings of a run as one flat TOML file; unknown keys are refused."""

import dataclasses
import difflib
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.config import RunConfig

PRESETS = Path(__file__).parent / "presets"

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

    The key `base` names a preset, or a file beside this one, whose settings hold where the file
    says nothing.

    Raises:
        ConfigError: no such file or preset, a preset of another stage, a file that cannot be
            read, not TOML, an unknown key, a wrong type, or bases in a circle.
    """
    path = _find(source)
    _check_stage(kind, path)
    try:
        return kind(**_values(kind, path, frozenset()))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    preset = PRESETS / f"{source}.toml"
    if not preset.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise ConfigError(f"{source}: no such configuration; give a TOML file or one of {known}")
    return preset


def _check_stage(kind: type[RunConfig], path: Path) -> None:
    """Refuse a preset of another stage; its name ends with the name of its stage."""
    if path.parent != PRESETS:
        return
    *_, stage = path.stem.split("-")
    wanted = kind.__name__.removesuffix("Config").removesuffix("Stage").lower()
    if stage != wanted:
        own = [p.stem for p in sorted(PRESETS.glob("*.toml")) if p.stem.split("-")[-1] == wanted]
        raise ConfigError(
            f"{path.stem}: is a preset of nsarm train {stage}, not of {wanted}; for that give "
            f"{' or '.join(own)}, or a TOML file"
        )


def _values(kind: type[RunConfig], path: Path, above: frozenset[Path]) -> dict[str, Any]:
    """Settings of a file over those of its base; `above` are the files that it is a base of."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid TOML ({error}); correct it") from error
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror or error}); check its rights"
        ) from error
    base = table.pop("base", None)
    values = _checked_values(kind, table)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"base is {base!r}; give the name of a preset or of a file")
    beside = path.parent / base
    below = _find(beside if beside.is_file() else base)
    above |= {path.resolve()}
    if below.resolve() in above:
        raise ConfigError(f'base "{base}" leads back to this file; name another')
    try:
        return _values(kind, below, above) | values
    except ConfigError as error:
        raise ConfigError(f'base "{base}": {error}') from error


def format_config(config: RunConfig) -> str:
    """Every setting of a run as TOML."""
    lines = [f"{name} = {_toml(value)}" for name, value in dataclasses.asdict(config).items()]
    return "\n".join(lines) + "\n"


def _checked_values(kind: type[RunConfig], table: dict[str, Any]) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, [*fields, "base"], 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"
            raise ConfigError(f"unknown setting {key}; {hint}")
    return {key: _checked(fields[key], value) for key, value in table.items()}


def _checked(field: "dataclasses.Field[Any]", value: Any) -> Any:
    default: Any = field.default
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is tuple and isinstance(value, list):
        item = field.metadata.get("item")  # lists of any length say what is in them
        if item is int and all(type(v) is int for v in value):
            return tuple(value)
        fits = item is float or (item is None and len(value) == len(default))
        if fits and all(type(v) in {int, float} for v in value):
            return tuple(float(v) for v in value)
    elif type(value) is wanted:
        return value
    like = default or field.metadata.get("like", default)
    raise ConfigError(f"{field.name} is {value!r}; give a {_TOML_NAMES[wanted]} like {_toml(like)}")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings escape alike
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(value)

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


def format_config(config: RunConfig) -> str:
    """Every setting of a run as TOML."""
    lines = [f"{name} = {_toml(value)}" for name, value in dataclasses.asdict(config).items()]
    return "\n".join(lines) + "\n"


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
    raise ConfigError(
        f"{path}: {field.name} is {value!r}; give a {_TOML_NAMES[wanted]} like {_toml(like)}"
    )


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings escape alike
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(value)

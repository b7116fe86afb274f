"""The model card: what a model is, what it was made from and what it reached."""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nsarm_cli.training.patterns import is_stream
from nsarm_cli.training.record import Record, lineage, read
from nsarm_cli.weights.folder import AnyConfig

CARD_FILE = "README.md"

_HEAD = """---
library_name: nsarm
pipeline_tag: image-to-image
tags:
- super-resolution
- nsarm
---

# {title}

A model for `nsarm`, which enlarges photographs {scale} times.

```
nsarm upscale photo.jpg --model {model}
```

Window {window} x {window} pixels; {parameters:,} parameters, stored as {precision}.
"""


def model_card(run: Path, config: AnyConfig, name: str, parameters: int, precision: str) -> str:
    """Text of the card in the form of the Hugging Face Hub.

    Args:
        run: folder of the run; what its records lack, the card leaves out.
        config: of the model.
        name: of the model: of its folder, or "user/name" of its repository.
        parameters: of the model.
        precision: of the stored weights.
    """
    head = _HEAD.format(
        title=name.rpartition("/")[2],
        model=name,
        scale=config.scale,
        window=config.window,
        parameters=parameters,
        precision=precision,
    )
    records = [read(folder) for folder, _ in lineage(run)]
    stages = [_stage(record) for record in records if record.stage]
    if not stages:
        return head + "\nHow it was trained is not recorded.\n"
    return head + "\nTrained in these steps, the last first.\n\n" + "\n".join(stages)


def _stage(record: Record) -> str:
    lines = [f"## {record.stage}", ""]
    for what, where in (("Trained", record.data), ("Validated", record.validation)):
        if where:
            lines += [f"{what} on: {', '.join(map(_source, where))}.", ""]
    if record.metrics:
        lines += ["| at the last validation | |", "|---|---:|"]
        lines += [
            f"| {name} | {value:.6g} |"
            for name, value in record.metrics.items()
            if isinstance(value, int | float)
        ]
        lines.append("")
    lines += [f"Settings (nsarm {record.version}):", "", "```toml", *_public(record.settings)]
    return "\n".join([*lines, "```", ""])


def _source(word: str) -> str:
    """What others may know of a word of `--data`: a name, without folders and credentials.

    Folders of somebody's machine mean nothing to others. A user in an address, its query and its
    fragment may be secrets, and a command may hold one anywhere.
    """
    if word.startswith("pipe:"):
        return "the output of a command"
    if not is_stream(word):
        return f"`{Path(word).name}`"
    address = word.partition("://")[2]
    path = re.split("[?#]", address, maxsplit=1)[0].partition("/")[2]
    name = PurePosixPath(path).name
    return f"`{name}`" if name else "an address"


def _public(settings: str) -> Iterator[str]:
    """Lines of settings without the folders of somebody's machine."""
    for line in settings.strip().splitlines():
        name, _, value = line.partition(" = ")
        path = json.loads(value) if value.startswith('"') else ""
        yield f"{name} = {json.dumps(Path(path).name)}" if Path(path).is_absolute() else line

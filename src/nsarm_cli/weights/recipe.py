"""How the published files of a model become its folder; what a family has to say about it.

The converter (`convert.py`) knows no family. A family describes each of its published files by
a `Part`: by which names to recognise the file, below which keys its tensors are nested, and how
the authors' names become ours. Everything else - digests, pickles, parts, shards, types, space,
restarts - is the same for all. To add a family, write its name tables beside `keymap.py`, build
a `Recipe` from them, and list it in `recipes.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.stored import StoredTensor

Rename = Callable[[Mapping[str, StoredTensor], str], dict[str, StoredTensor]]
"""From the authors' names to ours, strictly; the text names the file in messages."""


@dataclass(frozen=True)
class Part:
    """One published file, or one set of shards.

    Attributes:
        role: its role in `weights.toml`.
        title: for messages.
        nestings: keys below which its tensors may lie, tried in order; () is the file itself.
        landmarks: names of which the file has at least one, and no other file of the model.
        rename: leaves out what the model computes itself; names what is unknown or missing.
    """

    role: str
    title: str
    nestings: tuple[tuple[str, ...], ...]
    landmarks: tuple[str, ...]
    rename: Rename

    def find(self, contents: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The mapping with this part's tensors, or None where the file is another one."""
        for keys in self.nestings:
            inner: Any = contents
            for key in keys:
                inner = inner.get(key) if isinstance(inner, Mapping) else None
            if isinstance(inner, Mapping) and any(name in inner for name in self.landmarks):
                return inner
        return None

    def take(self, contents: Mapping[str, Any], source: str) -> dict[str, StoredTensor]:
        """This part's tensors by our names.

        Args:
            contents: from `find`.
            source: the file, for messages.

        Raises:
            WeightsError: there is something else than tensors, or names or shapes are not the
                model's.
        """
        strange = [str(n) for n, value in contents.items() if not isinstance(value, StoredTensor)]
        if strange:
            raise WeightsError(
                f"{source}: has something else than a tensor under {strange[0]}; "
                f"give {self.title} as its authors publish it"
            )
        return self.rename(contents, source)


@dataclass(frozen=True)
class Recipe:
    """A model that can be made from published files.

    Attributes:
        name: of the model.
        family: the package of `nsarm_cli.models` that runs it.
        config: of the family, as plain values for JSON.
        parts: the published files, all of them needed.
        layout: the model's tensors by our names, without memory, in the types that a run in
            the given type uses; what is stored has these names, shapes and types.
        text_width: width of the features of its text encoder, or None without one.
        prompt: the text whose features a run uses when the user gives none; None without text.
    """

    name: str
    family: str
    config: dict[str, Any]
    parts: tuple[Part, ...]
    layout: Callable[[torch.dtype], Mapping[str, Tensor]]
    text_width: int | None = None
    prompt: str | None = None

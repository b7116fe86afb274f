"""Published files, checked and opened, and which part of a model each of them is."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights import text_encoder as t5
from nsarm_cli.weights.checkpoint import CheckedFiles, check_files, read_contents
from nsarm_cli.weights.originals import Original
from nsarm_cli.weights.recipe import Recipe
from nsarm_cli.weights.trust import Trust

OnProgress = Callable[[str, float], None]
"""Called with what is being done, and its finished share in [0, 1]."""


@dataclass
class OpenedFiles:
    """Open checkpoints by what they are, with what they hold.

    Attributes:
        parts: by the role of the part; what they hold is by name.
        text: of the text encoder, if the model has one.
    """

    parts: dict[str, tuple[CheckedFiles, Mapping[str, Any]]] = field(default_factory=dict)
    text: tuple[CheckedFiles, Mapping[str, Any]] | None = None

    def all(self) -> list[CheckedFiles]:
        """Every one of them."""
        files = [checked for checked, _ in self.parts.values()]
        return files if self.text is None else [*files, self.text[0]]


def open_files(
    recipe: Recipe,
    sources: Sequence[Original],
    trust: Trust,
    opened: ExitStack,
    on_progress: OnProgress,
) -> OpenedFiles:
    """Check the digests of all sources, and only then open each and find out what it is.

    Args:
        recipe: what the model is made of.
        sources: all its published files.
        trust: which digests are known.
        opened: closes them.
        on_progress: told of what is checked.

    Raises:
        WeightsError: a source is missing, refused, damaged or of another model.
    """
    sizes = [sum(path.stat().st_size for path in source.files) for source in sources]
    total = max(sum(sizes), 1)
    done = 0
    checked: list[CheckedFiles] = []

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        on_progress("checking", done / total)

    for i, source in enumerate(sources, start=1):
        checked.append(opened.enter_context(check_files(source, trust, on_bytes)))
        on_bytes(sum(sizes[:i]) - done)  # not every file is read whole
    trust.check_given({d for one in checked for digests in one.digests for d in digests})
    files = OpenedFiles()
    for one in checked:
        if not _recognise(recipe, one, files):
            titles = [part.title for part in recipe.parts] + _text_title(recipe)
            raise WeightsError(
                f"{one.original.name}: is none of the files that {recipe.name} is made of, or is "
                f"given twice; it is made of {', '.join(titles)}"
            )
    missing = [part.title for part in recipe.parts if part.role not in files.parts]
    missing += [] if files.text is not None else _text_title(recipe)
    if missing:
        raise WeightsError(f"{recipe.name}: {' and '.join(missing)} is missing; give its files too")
    return files


def _recognise(recipe: Recipe, checked: CheckedFiles, files: OpenedFiles) -> bool:
    contents = read_contents(checked)
    for part in recipe.parts:
        inside = part.find(contents)
        if inside is not None and part.role not in files.parts:
            files.parts[part.role] = (checked, inside)
            return True
    if recipe.text_width and files.text is None and t5.LANDMARK in contents:
        files.text = (checked, contents)
        return True
    return False


def _text_title(recipe: Recipe) -> list[str]:
    return ["the text encoder (the folder of flan-t5-xl)"] if recipe.text_width else []

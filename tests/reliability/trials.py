"""One trial each: a spoilt file is given to what reads it, and only a clear refusal may come.

A trial returns "used" (the damage was harmless, or not to be seen) or "refused". Any other error
than the package's own passes through, and so does a message that is not one clear sentence.
"""

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save
from tests.reliability.mutations import mutate, mutate_any, valid_files

from nsarm_cli.errors import ConfigError, ImageError, NsarmError, WeightsError
from nsarm_cli.imaging.comparison import Comparison
from nsarm_cli.imaging.formats import OUTPUT_FORMATS, output_format
from nsarm_cli.imaging.layout import finish, layout_for
from nsarm_cli.imaging.output import write_picture
from nsarm_cli.imaging.picture import read_picture
from nsarm_cli.text.features import KEY, read_features
from nsarm_cli.text.prompts import read_prompt_file
from nsarm_cli.weights.catalog import catalog_path, load_catalog
from nsarm_cli.weights.checkpoint import check_files, read_contents
from nsarm_cli.weights.folder import load_model
from nsarm_cli.weights.originals import find_originals
from nsarm_cli.weights.stored import StoredTensor
from nsarm_cli.weights.trust import Trust

_LARGE = 1_000_000  # pixels; a spoilt header may ask for more, which is read and not written
_LONG = 16_000  # pixels of a side, which WebP can still hold
_ENDINGS = ("png", "tif", "jpg", "webp", "avif")


class Unclear(Exception):  # noqa: N818 (it is the verdict on a message)
    """A refusal that a person could not use."""


@dataclass
class _Verdict:
    refused: bool = False

    def __str__(self) -> str:
        return "refused" if self.refused else "used"


@contextmanager
def _judged(path: Path, kind: type[NsarmError]) -> Iterator[_Verdict]:
    verdict = _Verdict()
    try:
        yield verdict
    except kind as error:
        message = str(error)
        names = str(path) in message or path.parent.name in message
        if not names or len(message) > 1000 or "Traceback" in message or "\n" in message.strip():
            raise Unclear(message) from error
        verdict.refused = True


@dataclass
class Trials:
    """Trials in a folder of their own.

    Attributes:
        folder: is filled with files.
        model: a whole model folder, to be spoilt in copies.
    """

    folder: Path
    model: Path
    _names: list[str] = field(default_factory=lambda: sorted(valid_files()))

    @property
    def kinds(self) -> dict[str, Callable[[int], str]]:
        """What can be tried, by name; each takes the number of the case."""
        return {
            "pictures": self.picture,
            "model folders": self.model_folder,
            "checkpoints": self.checkpoint,
            "catalogues": self.catalogue,
            "prompt files": self.prompts,
            "prompt features": self.features,
        }

    def picture_format(self, case: int) -> str:
        """Name of the valid file that a case of `picture` spoils."""
        return self._names[case % len(self._names)]

    def picture(self, case: int) -> str:
        """Read a picture, and write it again at its size in one of the formats."""
        name = self.picture_format(case)
        path = self.folder / f"case{Path(name).suffix}"
        path.write_bytes(mutate(name, random.Random(case)))
        out = self.folder / f"out.{_ENDINGS[case // len(self._names) % len(_ENDINGS)]}"
        assert out.suffix in OUTPUT_FORMATS
        with _judged(path, ImageError) as verdict:
            picture = read_picture(path)
        if verdict.refused:
            return str(verdict)
        width, height = picture.width, picture.height
        if width * height > _LARGE or max(width, height) > _LONG:
            for _ in picture.rows().strips:
                pass
            return str(verdict)
        layout, _ = layout_for(picture, width, height, output_format(out))
        pair = Comparison(picture, layout)
        strips = pair.watch(finish(picture, picture.rows(), layout))
        # What was read can be written, whatever its metadata hold, and then read again.
        write_picture(out, layout, strips, overwrite=True)
        again = read_picture(out)
        assert (again.width, again.height) == (width, height)
        return str(verdict)

    def model_folder(self, case: int) -> str:
        """Load a model folder with one spoilt file."""
        rng = random.Random(case)
        target = self.folder / "model"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.model, target)
        name = rng.choice(["config.json", "model.safetensors"])
        data = (target / name).read_bytes()
        # The header of a safetensors file is where damage can mislead a reader.
        reach = 3000 if name == "model.safetensors" and rng.random() < 0.8 else len(data)
        spoilt = mutate_any(data[:reach], rng) + data[reach:]
        (target / name).write_bytes(spoilt)
        with _judged(target / name, WeightsError) as verdict:
            load_model(target)
        return str(verdict)

    def checkpoint(self, case: int) -> str:
        """Open a checkpoint as the converter does, asked to trust it, and read its numbers."""
        rng = random.Random(case)
        path = self.folder / "case.pth"
        path.write_bytes(_spoilt_checkpoint(rng.choice(self._checkpoints), rng))
        with _judged(path, WeightsError) as verdict:
            (original,) = find_originals([path])
            with check_files(original, Trust(unverified=True), lambda _: None) as checked:
                for value in read_contents(checked).values():
                    if isinstance(value, StoredTensor) and value.numel < 10**6:
                        value.read()
        assert not self._flag.exists(), "code in a pickle was run"
        return str(verdict)

    def catalogue(self, case: int) -> str:
        """Read a spoilt weights.toml."""
        path = self.folder / "weights.toml"
        path.write_bytes(mutate_any(self._catalogue, random.Random(case)))
        with _judged(path, ConfigError) as verdict:
            load_catalog(path)
        return str(verdict)

    def prompts(self, case: int) -> str:
        """Read a spoilt file of prompts."""
        path = self.folder / "prompts.jsonl"
        line = json.dumps({"image_path": "a/b.png", "long_caption": "A thing, é."})
        path.write_bytes(mutate_any(f"{line}\n{line}\n".encode(), random.Random(case)))
        with _judged(path, ConfigError) as verdict:
            read_prompt_file(path).find(Path("b.png"))
        return str(verdict)

    def features(self, case: int) -> str:
        """Read a spoilt file of an encoded prompt."""
        path = self.folder / "features.safetensors"
        path.write_bytes(mutate_any(save({KEY: torch.ones(5, 8)}), random.Random(case)))
        with _judged(path, ConfigError) as verdict:
            read_features(path, 8)
        return str(verdict)

    @cached_property
    def _catalogue(self) -> bytes:
        return catalog_path().read_bytes()

    @property
    def _flag(self) -> Path:
        return self.folder / "code-has-run"

    @cached_property
    def _checkpoints(self) -> list[bytes]:
        """One of tensors alone, and one in which code stands for a tensor."""
        both = []
        for value in (torch.ones(3), _Code(self._flag)):
            file = io.BytesIO()
            torch.save({"trainer": {"x": torch.ones(5, 2), "y": value}, "step": 3}, file)
            both.append(file.getvalue())
        return both


class _Code:
    """Writes a file when it is unpickled in the ordinary way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def _spoilt_checkpoint(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return mutate_any(data, rng)
    # Spoil the pickle inside, under a right checksum: otherwise the archive refuses it first.
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            record = old.read(info)
            if info.filename.endswith("data.pkl"):
                record = mutate_any(record, rng)
            new.writestr(info.filename, record)
    return file.getvalue()

"""Options about text: what they say, for which picture, and whether the model can hear it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nsarm_cli.cli import console

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nsarm_cli.models.interface import Sampling, SuperResolver

_NAMED = 3
"""Pictures without a caption that a warning names."""

Prompt = Annotated[
    str | None,
    typer.Option(
        help="What the pictures show.", show_default="the model's own prompt", metavar="TEXT"
    ),
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        help="JSON lines with image_path and long_caption; matched to pictures by file name.",
        metavar="FILE",
        show_default=False,
    ),
]
PromptSidecar = Annotated[
    bool, typer.Option("--prompt-sidecar", help="Read photo.txt beside photo.jpg as its prompt.")
]
PromptFeatures = Annotated[
    Path | None,
    typer.Option(
        help="Safetensors file with an encoded prompt, in place of --prompt.",
        metavar="FILE",
        show_default=False,
    ),
]
NegativePrompt = Annotated[
    str | None,
    typer.Option(
        help="What the pictures should not show; needs --cfg.", metavar="TEXT", show_default=False
    ),
]
Cfg = Annotated[
    str | None,
    typer.Option(
        help="Weight of the prompt: one number, or one per scale with commas; 1 is off. "
        "Another weight doubles time and cache.",
        metavar="NUMBERS",
        show_default="the model's",
    ),
]


@dataclass(frozen=True)
class Words:
    """What the model hears about each picture.

    Attributes:
        texts: prompts by picture.
        features: encoded prompts by their text.
        shared: an encoded prompt of all pictures, from a file.
        negative: encoded, or None.
        guidance: from `--cfg`, or None.
    """

    texts: Mapping[Path, str] = field(default_factory=dict)
    features: "Mapping[str, Tensor]" = field(default_factory=dict)
    shared: "Tensor | None" = None
    negative: "Tensor | None" = None
    guidance: float | tuple[float, ...] | None = None

    def prompt(self, picture: Path) -> "Tensor | None":
        """Features of a picture's prompt; None means the model's own."""
        text = self.texts.get(picture)
        return self.shared if text is None else self.features[text]

    def facts(self, picture: Path) -> dict[str, str]:
        """The prompt as a setting to be recorded; nothing when it is the model's own."""
        return {"prompt": self.texts[picture]} if picture in self.texts else {}

    def guide(self, sampling: "Sampling") -> "Sampling":
        """Sampling settings with `--cfg` in them."""
        return sampling if self.guidance is None else replace(sampling, guidance=self.guidance)

    def check(self, resolver: "SuperResolver") -> None:
        """Refuse a `--cfg` that the model cannot follow."""
        from nsarm_cli.models.interface import TakesGuidance

        if self.guidance is None:
            return
        if not isinstance(resolver, TakesGuidance):
            raise typer.BadParameter(
                "this model has no guidance; leave the option out.", param_hint="--cfg"
            )
        if isinstance(self.guidance, tuple) and len(self.guidance) != resolver.scales:
            raise typer.BadParameter(
                f"it has {len(self.guidance)} weights, but this model has {resolver.scales} "
                "scales; give one number, or one for each scale.",
                param_hint="--cfg",
            )


@dataclass(frozen=True)
class PromptOptions:
    """The options as given."""

    prompt: str | None = None
    prompt_file: Path | None = None
    sidecar: bool = False
    features: Path | None = None
    negative: str | None = None
    cfg: str | None = None

    def gather(
        self, pictures: Sequence[Path], model: str, device: "torch.device", dtype: "torch.dtype"
    ) -> Words:
        """Read and encode all prompts before the model is loaded, so both never share a card.

        Args:
            pictures: inputs of the run.
            model: its name or folder.
            device: where prompts are encoded.
            dtype: of the run.

        Raises:
            typer.BadParameter: an option contradicts another or the model.
            NsarmError: a file of prompts or the text encoder is missing or damaged.
        """
        guidance = _weights(self.cfg)
        used = [name for name, value in self._text_options() if value not in (None, False)]
        if not used:
            return Words(guidance=guidance)
        width = _width(model, used[0])
        self._check(guidance)
        texts = self._texts(pictures)
        distinct = sorted({*texts.values(), *([] if self.negative is None else [self.negative])})
        features: dict[str, Tensor] = {}
        if distinct:
            from nsarm_cli.weights.families import CONVERT_TEXT, load_text_encoder

            remedy = f"{CONVERT_TEXT}, or give --prompt-features"
            encoder = load_text_encoder(model, device, dtype, remedy)
            features = dict(zip(distinct, encoder.encode(distinct), strict=True))
        shared = None
        if self.features is not None:
            from nsarm_cli.text.features import read_features

            shared = read_features(self.features, width)
        negative = None if self.negative is None else features[self.negative]
        return Words(texts, features, shared, negative, guidance)

    def needs_encoder(self, model: str) -> bool:
        """Whether the text encoder will run.

        Raises:
            typer.BadParameter: the model takes no text.
        """
        used = [name for name, value in self._text_options() if value not in (None, False)]
        if used:
            _width(model, used[0])
        return bool(set(used) - {"--prompt-features"})

    def _text_options(self) -> tuple[tuple[str, object], ...]:
        return (
            ("--prompt", self.prompt),
            ("--prompt-file", self.prompt_file),
            ("--prompt-sidecar", self.sidecar),
            ("--prompt-features", self.features),
            ("--negative-prompt", self.negative),
        )

    def _check(self, guidance: float | tuple[float, ...] | None) -> None:
        if self.features is not None and self.prompt is not None:
            raise typer.BadParameter(
                "it takes the place of --prompt; give one of the two.",
                param_hint="--prompt-features",
            )
        if self.negative is not None and not _is_guided(guidance):
            raise typer.BadParameter(
                "it acts through guidance alone; give --cfg a number other than 1.",
                param_hint="--negative-prompt",
            )

    def _texts(self, pictures: Sequence[Path]) -> dict[Path, str]:
        """The prompt of each picture: its own line, else its own text file, else `--prompt`."""
        from nsarm_cli.text.prompts import read_prompt_file, read_sidecar

        captions = None if self.prompt_file is None else read_prompt_file(self.prompt_file)
        texts: dict[Path, str] = {}
        without: list[str] = []
        for picture in pictures:
            own = None if captions is None else captions.find(picture)
            if own is None and self.sidecar:
                own = read_sidecar(picture)
            if own is None and (captions is not None or self.sidecar):
                without.append(picture.name)
            text = self.prompt if own is None else own
            if text is not None:
                texts[picture] = text
        if without and self.prompt is None and self.features is None:
            names = ", ".join(without[:_NAMED]) + (", ..." if len(without) > _NAMED else "")
            console.say(
                f"warning: {len(without)} of {len(pictures)} pictures have no prompt of their own "
                f"({names}): they run under the model's"
            )
        return texts


def _is_guided(guidance: float | tuple[float, ...] | None) -> bool:
    """Whether guidance does anything."""
    weights = guidance if isinstance(guidance, tuple) else (guidance,)
    return any(weight not in {None, 1.0} for weight in weights)


def is_guided_by(cfg: str | None) -> bool | None:
    """Whether `--cfg` turns guidance on; None leaves it to the model."""
    return None if cfg is None else _is_guided(_weights(cfg))


def _width(model: str, option: str) -> int:
    """Width of a model's prompt features; refuses the option where the model takes no text."""
    from nsarm_cli.weights.families import text_width

    width = text_width(model)
    if width is None:
        raise typer.BadParameter(
            f"model {model} takes no text; leave the option out.", param_hint=option
        )
    return width


def _weights(cfg: str | None) -> float | tuple[float, ...] | None:
    if cfg is None:
        return None
    try:
        weights = tuple(float(part) for part in cfg.split(","))
    except ValueError:
        weights = ()
    if not weights or not all(math.isfinite(weight) for weight in weights):
        raise typer.BadParameter(
            f"{cfg!r} is not a number, or numbers with commas.", param_hint="--cfg"
        )
    return weights[0] if len(weights) == 1 else weights

"""What is done with every picture of a run, and how that is recorded."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsarm_cli import __version__
from nsarm_cli.cli.outputs import Job
from nsarm_cli.cli.prompts import Words
from nsarm_cli.cli.steering import Steering

if TYPE_CHECKING:
    from nsarm_cli.imaging.layout import Layout
    from nsarm_cli.imaging.sizes import Size
    from nsarm_cli.memory.session import Session
    from nsarm_cli.models.interface import Sampling
    from nsarm_cli.pipeline import Upscaler


@dataclass(frozen=True)
class Settings:
    """What is done with each picture.

    Attributes:
        model: its name, as asked for or chosen.
        digest: of its weights, or None.
        device: where it runs.
        precision: number format of its weights.
        session: how it fits into the memory.
        size: of the outputs.
        seed: the user's.
        temperature: None for the model's; so are the next two.
        top_p: share of probability.
        color: a name of `imaging.color.METHODS`.
        words: prompts of the pictures, and guidance.
        steering: strength of the guidance, and the refiner.
        quality: of the encoders that have such a thing, or None.
        keeps_metadata: outputs get the metadata of inputs, and these settings.
        trace: where the first window's tensors go, or None.
        overwrite_trace: that file may be replaced.
        compiled: the model runs through torch.compile.
    """

    model: str
    digest: str | None
    device: str
    precision: str
    session: "Session"
    size: "Size"
    seed: int
    temperature: float | None
    top_p: float | None
    color: str | None
    words: Words
    steering: Steering
    quality: int | None = None
    keeps_metadata: bool = True
    trace: Path | None = None
    overwrite_trace: bool = False
    compiled: bool = False

    def sampling(self, tuned: "Sampling") -> "Sampling":
        """The model's settings with those that were asked for."""
        if self.temperature is not None:
            tuned = replace(tuned, temperature=self.temperature)
        if self.top_p is not None:
            tuned = replace(tuned, top_p=self.top_p)
        return self.steering.guide(self.words.guide(tuned))

    def key(self, job: Job) -> dict[str, Any]:
        """Everything that changes the output of a job, known before the model is loaded."""
        return {
            "model": self.model,
            "digest": self.digest,
            "precision": self.precision,
            "quantize": str(self.session.settings.quantize),
            "compiled": self.compiled,
            "size": [self.size.scale, self.size.width, self.size.height, self.size.max_side],
            "seed": self.seed,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "color": self.color,
            "guidance": self.words.guidance,
            "steering": list(astuple(self.steering)),
            "quality": self.quality,
            "metadata": self.keeps_metadata,
            "compare": job.comparison is not None,
            **self.words.facts(job.source),
        }

    def facts(
        self, job: Job, upscaler: "Upscaler", before: tuple[int, int], after: tuple[int, int]
    ) -> dict[str, Any]:
        """How one picture is made, for `--json`.

        Args:
            job: input and output.
            upscaler: the model, which fills in what was not asked for.
            before: (width, height) of the input.
            after: likewise of the output.
        """
        sampling = self.sampling(upscaler.sampling)
        return {
            "input_size": list(before),
            "output_size": list(after),
            "settings": {
                "program": f"nsarm {__version__}",
                "model": self.model,
                "digest": self.digest,
                "device": self.device,
                "precision": self.precision,
                "quantize": str(self.session.settings.quantize),
                "seed": self.seed,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "guidance": sampling.guidance,
                "refiner_steps": sampling.refiner_steps,
                "color": self.color or upscaler.resolver.color,
                "quality": self.quality,
                **self.words.facts(job.source),
            },
        }

    def describe(self, layout: "Layout", settings: Mapping[str, Any]) -> "Layout":
        """Give an output its metadata."""
        from nsarm_cli.imaging.metadata import NOTHING

        if not self.keeps_metadata:
            return replace(layout, metadata=NOTHING)
        return replace(layout, metadata=layout.metadata.with_settings(settings))

"""Options for models that are guided by quality or that have a refiner."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nsarm_cli.models.interface import Sampling, SuperResolver

Guidance = Annotated[
    float | None,
    typer.Option(
        help="Strength of the guidance: 0 is off. The same as --cfg less 1.",
        min=0,
        metavar="NUMBER",
        show_default="the model's",
    ),
]
RefinerSteps = Annotated[
    int | None,
    typer.Option(
        help="Steps of the refiner, which adds fine texture after the last scale.",
        min=2,
        max=1000,
        metavar="N",
        show_default="the model's",
    ),
]
NoRefiner = Annotated[bool, typer.Option("--no-refiner", help="Leave the refiner out.")]


@dataclass(frozen=True)
class Steering:
    """The options as given.

    Attributes:
        guidance: 0 or more; None keeps the model's.
        refiner_steps: None keeps the model's.
        refines: false leaves the refiner out.
    """

    guidance: float | None = None
    refiner_steps: int | None = None
    refines: bool = True

    def check_options(self, cfg: str | None) -> None:
        """Refuse options that contradict each other."""
        if self.guidance is not None and cfg is not None:
            raise typer.BadParameter(
                "it says the same as --cfg; give one of the two.", param_hint="--guidance"
            )
        if self.refiner_steps is not None and not self.refines:
            raise typer.BadParameter(
                "there are none with --no-refiner; give one of the two.",
                param_hint="--refiner-steps",
            )

    def check(self, resolver: "SuperResolver") -> None:
        """Refuse options that the model cannot follow."""
        from nsarm_cli.models.interface import TakesGuidance

        if self.guidance is not None and not isinstance(resolver, TakesGuidance):
            raise typer.BadParameter(
                "this model has no guidance; leave the option out.", param_hint="--guidance"
            )
        if resolver.sampling.refiner_steps == 0 and not (
            self.refiner_steps is None and self.refines
        ):
            option = "--refiner-steps" if self.refines else "--no-refiner"
            raise typer.BadParameter(
                "this model has no refiner; leave the option out.", param_hint=option
            )

    def guide(self, sampling: "Sampling") -> "Sampling":
        """Sampling settings with these in them."""
        if self.guidance is not None:
            sampling = replace(sampling, guidance=1 + self.guidance)
        if self.refiner_steps is not None:
            sampling = replace(sampling, refiner_steps=self.refiner_steps)
        return sampling if self.refines else replace(sampling, refiner_steps=0)

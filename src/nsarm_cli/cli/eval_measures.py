"""Loading the measures of `nsarm eval`, and telling about those that are missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nsarm_cli.cli import console
from nsarm_cli.cli.options import value_of
from nsarm_cli.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    import torch

    from nsarm_cli.evaluation.measures import Measure, Missing
    from nsarm_cli.evaluation.pictures import PictureSet
    from nsarm_cli.evaluation.pyiqa_measures import Fid

_LEARNED = ("lpips", "dists")


def load_measures(
    names: list[str] | None, folder: Path | None, device: "torch.device"
) -> "tuple[list[Measure], list[Missing]]":
    """Load the measures; those that are missing are told about.

    Args:
        names: of the measures; None takes all that can be computed.
        folder: has the weights of LPIPS and DISTS; by default one beside the models.
        device: they run there.

    Raises:
        BadParameter: a name is unknown.
        WeightsError: a measure that was named cannot be computed.
    """
    from nsarm_cli.evaluation.measures import choose, learned_measures, own_measures
    from nsarm_cli.evaluation.pyiqa_measures import pyiqa_measures
    from nsarm_cli.evaluation.robustness import PAPER
    from nsarm_cli.weights.store import Store

    learned, missing = learned_measures(_LEARNED, folder or Store().root / "measures", device)
    extra, missing_extra = pyiqa_measures(device)
    missing += missing_extra
    own = {m.name: m for m in [*own_measures(), *learned, *extra]}
    order = ("psnr_y", "ssim_y", "lpips", "dists", "niqe", *PAPER, "lr_psnr", "color_shift")
    available = [own[name] for name in order if name in own]
    with value_of("--measures"):
        chosen = choose(available, missing, names)
    if names is not None:
        return chosen, []
    reasons: dict[str, list[str]] = {}
    for entry in missing:
        reasons.setdefault(entry.reason, []).append(entry.name)
    for reason, left_out in reasons.items():
        verb = "is" if len(left_out) == 1 else "are"
        console.say(f"{', '.join(left_out)} {verb} left out: {reason}")
    return chosen, missing


def require_values(sets: "Sequence[PictureSet]", measures: "Sequence[Measure]") -> None:
    """Refuse measures of which a set can have none.

    Raises:
        ConfigError: they all compare with references, and the set has none.
    """
    for picture_set in sets:
        if not picture_set.has_references and all("gt" in m.needs for m in measures):
            names = ", ".join(m.name for m in measures)
            raise ConfigError(
                f"{picture_set.name}: has no references, which {names} would compare with; add "
                "niqe or lr_psnr, or references"
            )


def load_fid_for(
    sets: "Sequence[PictureSet]", device: "torch.device", missing: "list[Missing]"
) -> "Fid | None":
    """Load FID where a set is large enough for it; what is missing is told about and added."""
    from nsarm_cli.evaluation.measures import Missing
    from nsarm_cli.evaluation.pyiqa_measures import FID_LEAST, load_fid

    if not any(s.has_references and len(s.items) >= FID_LEAST for s in sets):
        return None
    try:
        return load_fid(device)
    except WeightsError as error:
        missing.append(Missing("fid", str(error)))
        console.say(f"fid is left out: {error}")
        return None

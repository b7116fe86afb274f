"""How large an output becomes."""

from dataclasses import dataclass
from pathlib import Path

from nsarm_cli.errors import ImageError


@dataclass(frozen=True)
class Size:
    """The size that was asked for; every picture keeps its proportions.

    Attributes:
        scale: output pixels per input pixel and side; None for the model's own.
        width: most pixels across, or None; instead of `scale`.
        height: most pixels down, or None; likewise.
        max_side: most pixels of the longer side, or None; a limit to any of the above.
        largest: most that `scale` may be.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    max_side: int | None = None
    largest: int = 16

    def of(self, path: Path, width: int, height: int, model_scale: int) -> tuple[int, int]:
        """Give the output of one picture its size.

        Args:
            path: the picture, for messages.
            width: of the input, in pixels.
            height: likewise.
            model_scale: what the model enlarges by.

        Returns:
            (width, height), at least 1.

        Raises:
            ImageError: that would be more than `largest` times as large.
        """
        if self.width is not None or self.height is not None:
            across = self.width / width if self.width is not None else None
            down = self.height / height if self.height is not None else None
            ratio = min(each for each in (across, down) if each is not None)
        else:
            ratio = model_scale if self.scale is None else self.scale
        if self.max_side is not None:
            ratio = min(ratio, self.max_side / max(width, height))
        if ratio > self.largest:
            raise ImageError(
                f"{path}: {width}x{height} pixels would be made {ratio:.3g} times as large; "
                f"at most {self.largest} times is possible, so ask for less"
            )
        return max(round(width * ratio), 1), max(round(height * ratio), 1)

    def label(self, model_scale: int) -> str:
        """Say the size in a few letters, for names of files: "x4", "w800", "w800h600"."""
        if self.width is None and self.height is None:
            return f"x{model_scale if self.scale is None else self.scale:g}"
        across = f"w{self.width}" if self.width is not None else ""
        return across + (f"h{self.height}" if self.height is not None else "")

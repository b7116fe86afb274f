"""Before and after beside each other: one picture, and one page with a slider.

Both show the middle of the output at its full size, since detail is what there is to compare, and
a picture of any size then costs no more than this. Before is the input, enlarged with a bicubic
filter; both are shown as sRGB, on white where they are transparent.

Letters: r rows of one strip, w width in pixels, c channels.
"""

import base64
import html
import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt
from PIL import Image

from nsarm_cli.imaging.atomic import whole_file
from nsarm_cli.imaging.layout import Layout
from nsarm_cli.imaging.metadata import NOTHING
from nsarm_cli.imaging.output import write_picture
from nsarm_cli.imaging.picture import Picture
from nsarm_cli.imaging.profiles import Pixels, Profile

LONGEST = 2560
"""Most pixels of a side of what is shown of each of the two."""

_GAP = 8  # white pixels between the two
_REACH = 4  # pixels of the input around what is shown, which the filter looks at

_Bytes = npt.NDArray[np.uint8]


def comparison_paths(output: Path) -> tuple[Path, Path]:
    """Name the picture and the page that belong to an output."""
    name = f"{output.stem}_compare"
    return output.with_name(f"{name}.png"), output.with_name(f"{name}.html")


class Comparison:
    """Collects what is shown of an output while its strips pass by.

    Args:
        picture: the input.
        layout: of the output.
    """

    def __init__(self, picture: Picture, layout: Layout) -> None:
        self._picture = picture
        self._layout = layout
        self.width = min(layout.width, LONGEST)
        """In pixels, of each of the two."""
        self.height = min(layout.height, LONGEST)
        """Likewise."""
        self._left = (layout.width - self.width) // 2
        self._top = (layout.height - self.height) // 2
        self._after = np.empty((self.height, self.width, 3), np.uint8)

    @property
    def layout(self) -> Layout:
        """Of the picture with both, without metadata."""
        return Layout(2 * self.width + _GAP, self.height, False, False, 8, None, NOTHING)

    def watch(self, strips: Iterator[Pixels]) -> Iterator[Pixels]:
        """Pass on the strips of the output, "r w c" of its layout."""
        top = 0
        for strip in strips:
            first = max(self._top, top)
            last = min(self._top + self.height, top + len(strip))
            if first < last:
                rows = strip[first - top : last - top, self._left : self._left + self.width]
                shown = _shown(rows, self._layout.profile, has_alpha=self._layout.has_alpha)
                self._after[first - self._top : last - self._top] = shown
            yield strip
            top += len(strip)

    def write(self, paths: tuple[Path, Path], sheet: Layout, title: str, overwrite: bool) -> None:
        """Write picture and page, each whole or not at all, once all strips have passed.

        Args:
            paths: see `comparison_paths`.
            sheet: `layout`, with the metadata that the picture shall have.
            title: of the page; any text.
            overwrite: files of these names may be replaced.

        Raises:
            ImageError: one exists, or the disk refuses.
        """
        before = self._before()
        gap = np.full((self.height, _GAP, 3), 255, np.uint8)
        both = iter([np.concatenate([before, gap, self._after], axis=1)])
        write_picture(paths[0], sheet, both, overwrite=overwrite)
        page = self._page(before, title)
        with whole_file(paths[1], overwrite=overwrite) as file:
            file.write(page.encode())

    def _before(self) -> _Bytes:
        """Cut the same part out of the input and enlarge it."""
        source = self._picture
        across, down = source.width / self._layout.width, source.height / self._layout.height
        left, top = self._left * across, self._top * down
        right, bottom = left + self.width * across, top + self.height * down
        # The filter reaches over the edges of the part.
        x, y = max(int(left) - _REACH, 0), max(int(top) - _REACH, 0)
        part = np.s_[y : int(bottom) + 1 + _REACH, x : int(right) + 1 + _REACH]
        pixels = source.pixels[part]
        if source.alpha is not None:
            pixels = np.concatenate([pixels, source.alpha[part][..., None]], axis=-1)
        shown = _shown(pixels, source.profile, has_alpha=source.alpha is not None)
        box = (left - x, top - y, min(right - x, shown.shape[1]), min(bottom - y, shown.shape[0]))
        image = Image.fromarray(shown)
        return np.asarray(
            image.resize((self.width, self.height), Image.Resampling.BICUBIC, box), np.uint8
        )

    def _page(self, before: _Bytes, title: str) -> str:
        layout = self._layout
        size = f"{self._picture.width}x{self._picture.height} to {layout.width}x{layout.height}"
        if (self.width, self.height) != (layout.width, layout.height):
            size += f", the middle {self.width}x{self.height}"
        template = files("nsarm_cli") / "assets" / "compare" / "page.html"
        return Template(template.read_text(encoding="utf-8")).substitute(
            title=html.escape(title.encode("utf-8", "replace").decode()),
            note=f"{size} pixels; before is enlarged with a bicubic filter",
            width=self.width,
            height=self.height,
            before=_data_url(before),
            after=_data_url(self._after),
        )


def _shown(pixels: Pixels, profile: Profile | None, *, has_alpha: bool) -> _Bytes:
    """Turn "r w c" into "r w 3" of 8 bits as a viewer shows it, on white."""
    colors = pixels[..., :-1] if has_alpha else pixels
    top = np.iinfo(pixels.dtype).max
    if profile is not None and not profile.is_srgb:
        unit = profile.to_srgb(colors).astype(np.float32) / 65535
    else:
        unit = colors.astype(np.float32) / top
    if has_alpha:
        cover = pixels[..., -1:].astype(np.float32) / top
        unit = unit * cover + (1 - cover)
    levels = (unit * 255).round().astype(np.uint8)
    return np.broadcast_to(levels, (*levels.shape[:2], 3))


def _data_url(pixels: _Bytes) -> str:
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        encoded, "JPEG", quality=95, subsampling=0, optimize=True
    )
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getbuffer()).decode()

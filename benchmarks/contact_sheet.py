"""Make the contact sheet: twelve photographs, bicubic beside nsarm-nano, pixel for pixel.

    python benchmarks/contact_sheet.py --val val512.tar val1024.tar

Ten photographs are CC0 and were cut from wallpapers; two come with the tests. The CC0 ones are
reduced four times by the light Real-ESRGAN degradation, as `nano_quality.py make` reduces them;
the other two are enlarged as they are, which shows a clean input. Only pictures that anybody
may redistribute belong here.
"""

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nsarm_cli import Upscaler
from nsarm_cli.errors import NsarmError
from nsarm_cli.training.photos import PhotoStore
from pictures import bicubic, degraded, photos, whole_scales

ROOT = Path(__file__).resolve().parents[1]
CROP = 384
"""Pixels of the enlarged picture that are shown, a side."""
GAP = 8
PAIR_GAP = 24
LABEL = 24
PAIRS_PER_ROW = 2
BUDGIE = "https://github.com/BuddiesOfBudgie/budgie-backgrounds"
SKIMAGE = "https://github.com/scikit-image/scikit-image"


@dataclass(frozen=True)
class Photo:
    """One photograph of the sheet.

    Attributes:
        name: of the file, without ending.
        title: what it shows.
        page: repository it comes from.
        path: in that repository.
        licence: SPDX identifier or "public domain".
        cut: how it was cut from the file.
        corner: left and top of the part shown, in pixels of the enlarged picture.
        clean: enlarge it as it is, rather than degraded four times.
    """

    name: str
    title: str
    page: str
    path: str
    licence: str
    cut: str
    corner: tuple[int, int]
    clean: bool = False


def _budgie(
    name: str, title: str, file: str, shrink: float, box: str, *, corner: tuple[int, int]
) -> Photo:
    cut = f"made {shrink:g} times smaller, then {box}"
    return Photo(name, title, BUDGIE, f"backgrounds/{file}", "CC0-1.0", cut, corner)


PHOTOS = (
    _budgie("0060", "budgerigar", "budgie-branch.jpg", 2, "728,144 to 1240,656", corner=(0, 32)),
    Photo(
        "astronaut_256",
        "astronaut",
        SKIMAGE,
        "skimage/data/astronaut.png",
        "public domain (NASA)",
        "made 256x256",
        (256, 32),
        clean=True,
    ),
    _budgie(
        "0072", "circuit board", "motherboard-circuits.jpg", 4, "224,64 to 736,576", corner=(64, 0)
    ),
    _budgie(
        "0086",
        "skyscrapers",
        "singaporean-cityscape.jpg",
        1.5,
        "1536,208 to 2048,720",
        corner=(96, 16),
    ),
    _budgie("0079", "osprey", "perched-osprey.jpg", 1.5, "512,720 to 1024,1232", corner=(128, 128)),
    _budgie("0082", "Colosseum", "roman-colosseum.jpg", 2, "704,540 to 1216,1052", corner=(32, 64)),
    _budgie(
        "0092", "spices", "the-spices-of-life.jpg", 1.5, "1536,597 to 2048,1109", corner=(96, 64)
    ),
    _budgie(
        "0070", "mountain lake", "lake-sherburne.jpg", 1.5, "2048,720 to 2560,1232", corner=(64, 0)
    ),
    _budgie(
        "0058_1024",
        "sunset over a town",
        "beacon-street-sunset.jpg",
        1.5,
        "1152,416 to 2176,1440",
        corner=(160, 64),
    ),
    _budgie(
        "0078", "path of gates", "orange-hallway.jpg", 2, "704,640 to 1216,1152", corner=(64, 128)
    ),
    _budgie(
        "0065", "dragonfly", "dragonfly-on-lavender.jpg", 4, "248,28 to 760,540", corner=(128, 0)
    ),
    Photo(
        "coffee_256",
        "cup of coffee",
        SKIMAGE,
        "skimage/data/coffee.png",
        "CC0-1.0",
        "made 256x256",
        (256, 256),
        clean=True,
    ),
)

Enlarge = Callable[[Image.Image], Image.Image]


def make_pairs(
    store: PhotoStore, seed: int, enlarge: Enlarge
) -> list[tuple[str, Image.Image, Image.Image]]:
    """Enlarge every photograph of `PHOTOS` in both ways and cut out the parts shown.

    Args:
        store: holds them.
        seed: of the degradation.
        enlarge: four times, the way that is compared with bicubic.

    Returns:
        Title, bicubic and ours.
    """
    index = photos(store)
    if missing := [photo.name for photo in PHOTOS if photo.name not in index]:
        sys.exit(f"{', '.join(missing)}: not among the photographs; name their folders with --val")
    pairs = []
    for number, photo in enumerate(PHOTOS, 1):
        lr = whole_scales(Image.fromarray(store[index[photo.name]]))
        if not photo.clean:
            lr = degraded(lr, photo.name, seed)
        box = (*photo.corner, *(start + CROP for start in photo.corner))
        pairs.append((photo.title, bicubic(lr).crop(box), enlarge(lr).crop(box)))
        print(f"{number} of {len(PHOTOS)}: {photo.title}", file=sys.stderr)
    return pairs


def lay_out(pairs: Sequence[tuple[str, Image.Image, Image.Image]], label: str) -> Image.Image:
    """Draw the pairs in rows, each part with its name under it.

    Args:
        pairs: title, bicubic and ours, of one size.
        label: how ours is called.
    """
    pair_width = 2 * CROP + GAP
    row_height = CROP + LABEL + GAP
    rows = -(-len(pairs) // PAIRS_PER_ROW)
    width = PAIRS_PER_ROW * (pair_width + PAIR_GAP) - PAIR_GAP + 2 * GAP
    sheet = Image.new("RGB", (width, rows * row_height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for i, (title, plain, ours) in enumerate(pairs):
        row, column = divmod(i, PAIRS_PER_ROW)
        left, top = GAP + column * (pair_width + PAIR_GAP), GAP + row * row_height
        for picture, text in ((plain, f"{title}, bicubic"), (ours, label)):
            sheet.paste(picture, (left, top))
            draw.text((left + 2, top + CROP + 3), text, fill="black", font=font)
            left += CROP + GAP
    return sheet


def encode(sheet: Image.Image, most_bytes: int) -> bytes:
    """Write a JPEG of the best quality that fits."""
    for quality in range(95, 49, -1):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=1)
        if buffer.tell() <= most_bytes:
            print(f"JPEG quality {quality}, {buffer.tell()} bytes", file=sys.stderr)
            return buffer.getvalue()
    return sys.exit(f"the sheet does not fit into {most_bytes} bytes; raise --kilobytes")


def sources(sheet: str, seed: int) -> str:
    """Write where the photographs come from, as Markdown."""
    lines = [
        "# Photographs of this folder",
        "",
        f"`{sheet}` is made by `benchmarks/contact_sheet.py` from the photographs below (the",
        f"degradation has seed {seed}); `coffee.png` is the last of them, and `ablation.webp` has",
        "a part of the first, mirrored. All may be redistributed. Positions are left,top to",
        "right,bottom, in pixels.",
        "",
        "| photograph | file | licence | cut | input |",
        "|---|---|---|---|---|",
    ]
    for photo in PHOTOS:
        link = f"[{photo.path}]({photo.page}) of {photo.page.removeprefix('https://github.com/')}"
        made = "as it is" if photo.clean else "light Real-ESRGAN degradation, 4x"
        lines.append(f"| {photo.title} | {link} | {photo.licence} | {photo.cut} | {made} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--val", type=Path, nargs="+", required=True, help="folders or tars")
    parser.add_argument("--model", default="nsarm-nano", help="as nsarm upscale takes it")
    parser.add_argument("--seed", type=int, default=0, help="of the degradation and the sampling")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/nano_contact_sheet.jpg")
    parser.add_argument("--kilobytes", type=int, default=900, help="greatest size of the file")
    args = parser.parse_args()
    try:
        upscaler = Upscaler.from_pretrained(
            args.model, device=args.device, precision=args.precision
        )
        store = PhotoStore([*args.val, ROOT / "tests/goldens/photos"], cache_bytes=0)
        pairs = make_pairs(store, args.seed, lambda lr: upscaler.upscale(lr, seed=args.seed))
    except NsarmError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    sheet = encode(lay_out(pairs, Path(args.model).name), args.kilobytes * 1000)
    args.out.write_bytes(sheet)
    (args.out.parent / "SOURCES.md").write_text(sources(args.out.name, args.seed), "utf-8")


if __name__ == "__main__":
    main()

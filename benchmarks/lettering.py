"""Make training pictures with lettering, signs and thin lines, of which photographs have few.

    python benchmarks/lettering.py --data train --fonts /usr/share/fonts --count 160 \
        --out data/lettering.tar

Each picture, 512 x 512, is a plate of one colour or a photograph of `--data`, with turned and
slanted panels of letters, rules and shapes on it, under an uneven light. Panels are drawn at twice
the size and reduced, so edges are as sharp as a good lens makes them. The shard holds PNG files and
is one that `nsarm train --data` reads.
"""

import argparse
import io
import math
import random
import string
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

SIDE = 512
FINER = 2
"""Panels are drawn this many times finer than they are shown."""

Colour = tuple[int, int, int]
Draw = Callable[[ImageDraw.ImageDraw, tuple[int, int], Colour, random.Random], None]


def read_photographs(folder: Path) -> list[Image.Image]:
    """The photographs in the tar shards of a folder, RGB."""
    pictures = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                stored = tar.extractfile(member)
                if stored is not None and member.name.endswith((".jpg", ".png", ".webp")):
                    pictures.append(Image.open(io.BytesIO(stored.read())).convert("RGB"))
    return pictures


def colour(rng: random.Random) -> Colour:
    """Any colour, white, black and greys more often than others."""
    if rng.random() < 0.4:
        grey = rng.choice((rng.randint(0, 60), rng.randint(0, 255), rng.randint(190, 255)))
        return grey, grey, grey
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def far_from(other: Colour, rng: random.Random) -> Colour:
    """A colour whose brightness is not that of another."""
    while True:
        found = colour(rng)
        if abs(sum(found) - sum(other)) > rng.randint(150, 400):
            return found


def words(rng: random.Random, letters: int) -> str:
    """Words without a meaning, as long as words are; some are numbers or in capitals."""
    line: list[str] = []
    while sum(map(len, line)) < letters:
        size = rng.randint(1, 9)
        kind = rng.random()
        if kind < 0.2:
            word = "".join(rng.choices(string.digits, k=size)) + rng.choice(("", "%", ".5", ":"))
        else:
            word = "".join(rng.choices("etaoinshrdlucmwfgypbvkjxqz", range(27, 1, -1), k=size))
            word = word.upper() if kind < 0.45 else word.capitalize() if kind < 0.6 else word
        line.append(word)
    return " ".join(line)


def draw_letters(fonts: list[Path]) -> Draw:
    """Lines of letters, each line of a size of its own now and then."""

    def draw(
        pen: ImageDraw.ImageDraw, size: tuple[int, int], ink: Colour, rng: random.Random
    ) -> None:
        path, y = rng.choice(fonts), rng.randint(2, 12) * FINER
        height = round(math.exp(rng.uniform(math.log(11), math.log(80)))) * FINER
        while y < size[1]:
            if rng.random() < 0.2:
                path = rng.choice(fonts)
                height = round(math.exp(rng.uniform(math.log(11), math.log(80)))) * FINER
            pen.text(
                (rng.randint(0, 20) * FINER, y),
                words(rng, 2 * size[0] // height),
                font=ImageFont.truetype(str(path), height),
                fill=ink,
            )
            y += round(height * rng.uniform(1.05, 1.6))

    return draw


def draw_rules(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], ink: Colour, rng: random.Random
) -> None:
    """Parallel lines of one width, as of shutters, tables and railings."""
    gap = rng.randint(5, 40) * FINER
    width = rng.randint(1, max(gap // (2 * FINER), 1)) * FINER
    crossed = rng.random() < 0.4
    for at in range(0, max(size), gap):
        pen.line((0, at, size[0], at), fill=ink, width=width)
        if crossed:
            pen.line((at, 0, at, size[1]), fill=ink, width=width)


def draw_shapes(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], ink: Colour, rng: random.Random
) -> None:
    """Discs, rings, boxes and arrows in several colours."""
    for _ in range(rng.randint(3, 12)):
        x, y = rng.randint(0, size[0]), rng.randint(0, size[1])
        reach = rng.randint(6, 90) * FINER
        box = (x, y, x + reach, y + round(reach * rng.uniform(0.3, 1.5)))
        width = rng.choice((0, rng.randint(1, 8) * FINER))
        fill, edge = (ink, None) if width == 0 else (None, ink)
        shape = rng.randrange(3)
        if shape == 0:
            pen.ellipse(box, fill, edge, max(width, 1))
        elif shape == 1:
            pen.rectangle(box, fill, edge, max(width, 1))
        else:
            pen.polygon([(box[0], box[1]), (box[2], box[1]), (x, box[3])], ink)
        ink = ink if rng.random() < 0.6 else colour(rng)


def panel(rng: random.Random, draws: list[Draw]) -> Image.Image:
    """One panel, RGBA, at the finer size; transparent around its slanted outline."""
    size = (rng.randint(120, 620) * FINER, rng.randint(80, 620) * FINER)
    ground = colour(rng)
    image = Image.new("RGBA", size, (*ground, 255 if rng.random() < 0.75 else 0))
    rng.choice(draws)(ImageDraw.Draw(image), size, far_from(ground, rng), rng)
    # A slight view from the side: rows and columns lean by some hundredths.
    slant, lean = rng.gauss(0, 0.07), rng.gauss(0, 0.07)
    leaning = (1, slant, 0, lean, 1, 0)
    image = image.transform(size, Image.Transform.AFFINE, leaning, Image.Resampling.BICUBIC)
    turn = 0.0 if rng.random() < 0.3 else rng.gauss(0, 12)
    return image.rotate(turn, Image.Resampling.BICUBIC, expand=True)


def light(rng: random.Random) -> NDArray[np.float64]:
    """Brightness over the picture, "h w 1", from one corner to another."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.35)
    return (1 + strength * (math.cos(angle) * x + math.sin(angle) * y))[..., None]


def picture(rng: random.Random, photographs: list[Image.Image], draws: list[Draw]) -> Image.Image:
    """One picture, RGB, 512 x 512."""
    canvas = Image.new("RGB", (SIDE * FINER, SIDE * FINER), colour(rng))
    if rng.random() < 0.6:
        photograph = rng.choice(photographs).resize(canvas.size, Image.Resampling.BICUBIC)
        canvas.paste(ImageEnhance.Brightness(photograph).enhance(rng.uniform(0.4, 1.0)))
    for _ in range(rng.randint(1, 3)):
        piece = panel(rng, draws)
        at = tuple(
            rng.randint(-piece_side // 3, max(full - piece_side * 2 // 3, 1))
            for piece_side, full in zip(piece.size, canvas.size, strict=True)
        )
        canvas.paste(piece, (at[0], at[1]), piece)
    reduced = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    reduced = reduced.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.5)))
    grain = np.random.default_rng(rng.randrange(2**32)).normal(
        0, rng.uniform(0, 1.5), (SIDE, SIDE, 1)
    )
    lit = np.asarray(reduced, np.float32) * light(rng) + grain
    return Image.fromarray(lit.round().clip(0, 255).astype(np.uint8))


def find_fonts(folder: Path) -> list[Path]:
    """Fonts that have Latin letters of different widths and shapes."""
    without = ("Symbol", "Dingbats", "D050", "Standard", "Fallback", "Math", "Emoji")
    found = sorted(p for p in folder.rglob("*") if p.suffix in (".ttf", ".otf"))
    return [p for p in found if not any(part in p.name for part in without)]


def main(arguments: list[str] | None = None) -> None:
    """Write a shard."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fonts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    fonts = find_fonts(args.fonts)
    if not fonts:
        parser.error(f"{args.fonts} has no .ttf or .otf font; name a folder that has")
    photographs = read_photographs(args.data)
    if not photographs:
        parser.error(f"{args.data} has no tar shard with photographs; name a folder that has")
    letters = draw_letters(fonts)
    draws = [letters, letters, letters, draw_rules, draw_shapes]
    with tarfile.open(args.out, "w") as tar:
        for number in range(args.count):
            stored = io.BytesIO()
            rng = random.Random(f"{args.seed}/{number}")  # noqa: S311  (pictures, no secrets)
            picture(rng, photographs, draws).save(stored, "PNG")
            entry = tarfile.TarInfo(f"lettering-{number:04d}.png")
            entry.size = stored.tell()
            stored.seek(0)
            tar.addfile(entry, stored)


if __name__ == "__main__":
    main()

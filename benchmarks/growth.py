"""Show how seconds and memory grow with the size of the picture.

    python benchmarks/growth.py --out growth --megapixels 0.02 0.25 1 4 16 64

Each size is a run of `nsarm upscale` in a process of its own, as a user would start it, on a
photograph resized to a square of a sixteenth of the output's pixels. Writes growth.json and
growth.svg, and prints a table: median seconds with the least and the most, processor seconds, and
the largest resident memory of any run.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

PHOTO = Path(__file__).parents[1] / "docs" / "images" / "coffee.png"
SCALE = 4


@dataclass(frozen=True)
class Growth:
    """What one size cost.

    Attributes:
        megapixels: of the output, in millions.
        seconds: of each run, from start to end of the process.
        processor_seconds: of the median run, over all threads.
        peak_bytes: largest resident memory of any run.
    """

    megapixels: float
    seconds: tuple[float, ...]
    processor_seconds: float
    peak_bytes: int

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)


def run(command: list[str]) -> tuple[float, float, int]:
    """Run a command to its end: seconds, processor seconds, and peak resident bytes."""
    began = time.perf_counter()
    with subprocess.Popen(  # noqa: S603  (our own program)
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        messages = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit(messages.decode(errors="replace"))
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit


def measure(megapixels: float, repeat: int, options: list[str], folder: Path) -> Growth:
    """Enlarge one size several times."""
    side = max(1, round(math.sqrt(megapixels * 1e6) / SCALE))
    source = folder / f"{side}.png"
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").resize((side, side), Image.Resampling.LANCZOS).save(source)
    target = folder / f"{side}_large.png"
    command = [sys.executable, "-m", "nsarm_cli", "upscale", str(source), "-o", str(target)]
    runs = sorted(run([*command, "--overwrite", *options]) for _ in range(repeat))
    with Image.open(target) as large:
        real = large.width * large.height / 1e6
    seconds = tuple(seconds for seconds, _, _ in runs)
    return Growth(real, seconds, runs[len(runs) // 2][1], max(peak for _, _, peak in runs))


def straight_line(points: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Fit y = a + b x with equal care for the relative error of every point.

    Returns:
        a, b and the largest relative error.
    """
    weights = [1 / (y * y) for _, y in points]
    total = sum(weights)
    x_mean = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    y_mean = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - x_mean) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    both = sum(w * (x - x_mean) * (y - y_mean) for w, (x, y) in zip(weights, points, strict=True))
    b = both / spread
    a = y_mean - b * x_mean
    return a, b, max(abs(a + b * x - y) / y for x, y in points)


def plot(growth: list[Growth]) -> str:
    """Draw seconds and gigabytes over megapixels, both axes logarithmic, as SVG."""
    width, height, margin = 640, 400, 60
    curves = {
        "seconds": ("#1f5fa8", [(g.megapixels, g.median) for g in growth]),
        "GB of memory": ("#b3541e", [(g.megapixels, g.peak_bytes / 1e9) for g in growth]),
    }
    values = [y for _, points in curves.values() for _, y in points]
    low_x, high_x = (f(math.log10(g.megapixels) for g in growth) for f in (min, max))
    low_y, high_y = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low_x) / max(high_x - low_x, 1e-9)
        up = (math.log10(y) - low_y) / (high_y - low_y)
        return margin + across * (width - 2 * margin), height - margin - up * (height - 2 * margin)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for power in range(low_y, high_y + 1):
        _, y = place(growth[0].megapixels, 10.0**power)
        parts.append(
            f'<path d="M{margin} {y:.1f}H{width - margin}" stroke="#ddd"/>'
            f'<text x="{margin - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for g in growth:
        x, _ = place(g.megapixels, 10.0**low_y)
        parts.append(
            f'<text x="{x:.1f}" y="{height - margin + 18}" text-anchor="middle">'
            f"{g.megapixels:.3g}</text>"
        )
    for row, (name, (color, points)) in enumerate(curves.items()):
        places = [place(x, y) for x, y in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in places]
        parts.append(f'<text x="{margin + 8}" y="{margin + 16 * row}" fill="{color}">{name}</text>')
    label = (
        f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">megapixels written</text>'
    )
    return "\n".join([*parts, label, "</svg>\n"])


def main(arguments: list[str] | None = None) -> None:
    """Measure every size and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [0.02, 0.1, 0.5, 1, 4, 16, 64]
    parser.add_argument("--megapixels", type=float, nargs="+", default=sizes)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--once-from", type=float, default=4, help="megapixels that are run once")
    parser.add_argument("--out", type=Path, required=True, help="folder for growth.json and .svg")
    parser.add_argument("options", nargs="*", help="passed on to nsarm upscale, after --")
    args = parser.parse_args(arguments)
    growth = []
    print("| megapixels | seconds (least, most) | processor seconds | peak MB |")
    print("|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in args.megapixels:
            repeat = args.repeat if megapixels < args.once_from else 1
            g = measure(megapixels, repeat, args.options, Path(folder))
            growth.append(g)
            spread = f"{g.median:.1f} ({g.seconds[0]:.1f}, {g.seconds[-1]:.1f})"
            memory = f"{g.peak_bytes / 1e6:.0f}"
            print(
                f"| {g.megapixels:.2f} | {spread} | {g.processor_seconds:.1f} | {memory} |",
                flush=True,
            )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "growth.json").write_text(
        json.dumps([asdict(g) for g in growth], indent=1), "utf-8"
    )
    (args.out / "growth.svg").write_text(plot(growth), "utf-8")
    if len(growth) > 1:
        a, b, error = straight_line([(g.megapixels, g.median) for g in growth])
        print(f"\n{a:.2f} s + {b:.2f} s per megapixel, at most {100 * error:.0f} % off")


if __name__ == "__main__":
    main()

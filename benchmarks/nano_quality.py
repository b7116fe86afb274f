"""Recompute the quality figures of nsarm-nano.

    python benchmarks/nano_quality.py make --val val512.tar --rp60 RP60 --out quality
    python benchmarks/nano_quality.py measure --out quality

`make` writes, for each set, QUALITY/SET/lr, /hr where there is a reference, and one folder per
method. The sets: "val", photographs reduced four times by the light Real-ESRGAN degradation;
"clean", the same reduced by bicubic; "rp60", real low-resolution photographs without a
reference. `measure` measures every folder beside lr and hr, so that the output of other
methods can be put there too. Both go on where they were interrupted.

LPIPS, DISTS, NIQE and SSIM need pyiqa, which `measure` uses if it is installed; PSNR-Y, LR
consistency and colour shift need nothing.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from measures import (
    HIGHER_IS_BETTER,
    Perceptual,
    Pixels,
    mean_and_error,
    own_measures,
    paired_difference,
)

BASELINE = "bicubic"
OURS = "nsarm"
SETS = ("val", "clean", "rp60")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

Row = dict[str, Any]
Rows = dict[str, Row]
"""Measures by name of the picture."""


def pictures_in(folder: Path) -> dict[str, Path]:
    """List a folder's pictures by name without ending; a missing folder has none."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {file.stem: file for file in files if file.suffix.lower() in ENDINGS}


def load(path: Path) -> Pixels:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def measure(out: Path, report: Path, table: Path | None) -> None:
    """Measure everything under `out`, print the tables and write the files."""
    try:
        perceptual = Perceptual()
    except (ImportError, RuntimeError) as error:
        perceptual = None
        print(
            f"SSIM-Y, LPIPS, DISTS and NIQE are left out, since pyiqa does not load ({error}); "
            "pip install pyiqa (for noncommercial use only) adds them.",
            file=sys.stderr,
        )
    earlier = json.loads(report.read_text("utf-8"))["sets"] if report.is_file() else {}
    results: dict[str, dict[str, Rows]] = {}
    for name in SETS:
        hr, lr = pictures_in(out / name / "hr"), pictures_in(out / name / "lr")
        methods = sorted(p.name for p in (out / name).glob("*") if p.name not in ("hr", "lr"))
        for method in methods:
            sr = pictures_in(out / name / method)
            if missing := [stem for stem in sr if stem not in lr or (hr and stem not in hr)]:
                sys.exit(f"{sr[missing[0]]}: has no input or no reference; remove it")
            rows = earlier.setdefault(name, {}).setdefault(method, {})
            for number, (stem, path) in enumerate(sr.items(), 1):
                files = [path, lr[stem], *([hr[stem]] if hr else [])]
                rows[stem] = measure_one(files, perceptual, rows.get(stem, {}))
                # After each picture, so that an interrupted run keeps what it has measured.
                write_report({"sets": earlier}, report)
                print(f"{name}/{method}: {number} of {len(sr)}", end="\r", file=sys.stderr)
            if sr:
                results.setdefault(name, {})[method] = {stem: rows[stem] for stem in sr}
                print(file=sys.stderr)
    if not results:
        sys.exit(f"{out}: holds no pictures; run `make` first")
    summary = summarise(results)
    write_report({"summary": summary, "sets": results}, report)
    if table is not None:
        write_table(results, table)
    print_means(summary)
    print_differences(summary)
    print_targets(summary)


def measure_one(files: list[Path], perceptual: Perceptual | None, known: Row) -> Row:
    """Measure one output; what was measured on the very same files is taken over.

    Args:
        files: output, input and, where there is one, reference.
        perceptual: None leaves its columns out.
        known: the row of an earlier run, or nothing.
    """
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if known.get("digest") == digest and (perceptual is None or "niqe" in known):
        return known
    sr, lr, *reference = (load(file) for file in files)
    hr = reference[0] if reference else None
    try:
        row: Row = {"digest": digest, **own_measures(sr, lr, hr)}
    except ValueError as error:
        sys.exit(f"{files[0]}: {error}; make it again from {files[1]}")
    return row | (perceptual.measure(sr, hr) if perceptual else {})


def summarise(results: dict[str, dict[str, Rows]]) -> dict[str, Any]:
    """Compute the means of each set and method, and the differences from the baseline."""
    summary: dict[str, Any] = {}
    for name, methods in results.items():
        for method, rows in methods.items():
            entry: dict[str, Any] = {"n": len(rows)}
            for column in columns_of(rows):
                values = np.array([row[column] for row in rows.values()])
                mean, error = mean_and_error(values)
                entry[column] = {"mean": mean, "standard_error": error}
                entry[column] |= {"least": float(values.min()), "greatest": float(values.max())}
                entry[column]["minus_bicubic"] = compare(column, rows, methods.get(BASELINE))
            shifts = np.array([[row[f"shift_{c}"] for c in "rgb"] for row in rows.values()])
            entry["mean_shift_rgb"] = shifts.mean(0).tolist()
            summary.setdefault(name, {})[method] = entry
    return summary


def columns_of(rows: Rows) -> list[str]:
    return [c for c in HIGHER_IS_BETTER if all(c in row for row in rows.values())]


def compare(column: str, rows: Rows, baseline: Rows | None) -> dict[str, Any] | None:
    """Compare with the baseline on the pictures both have."""
    if baseline is None or baseline is rows:
        return None
    both = [stem for stem in rows if column in baseline.get(stem, {})]
    if not both:
        return None
    a, b = (np.array([r[stem][column] for stem in both]) for r in (rows, baseline))
    return {"n": len(both), **asdict(paired_difference(column, a, b))}


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report; an interruption leaves the one before."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(report, indent=1), "utf-8")
    temporary.replace(path)


def write_table(results: dict[str, dict[str, Rows]], path: Path) -> None:
    """Write one line per picture."""
    columns = [*HIGHER_IS_BETTER, "shift_r", "shift_g", "shift_b"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "method", "name", *columns])
        for name, methods in results.items():
            for method, rows in methods.items():
                for stem, row in rows.items():
                    cells = (f"{row[c]:.4f}" if c in row else "" for c in columns)
                    writer.writerow([name, method, stem, *cells])


def print_means(summary: dict[str, Any]) -> None:
    print("Mean ± standard error over the pictures\n")
    print("| set | method | n |", " | ".join(HIGHER_IS_BETTER), "| greatest color_shift |")
    print("|---" * (len(HIGHER_IS_BETTER) + 4) + "|")
    for name, methods in summary.items():
        for method, entry in methods.items():
            cells = [
                f"{entry[c]['mean']:.4f} ± {entry[c]['standard_error']:.4f}" if c in entry else "–"
                for c in HIGHER_IS_BETTER
            ]
            worst = f"{entry['color_shift']['greatest']:.4f}"
            print("|", " | ".join([name, method, str(entry["n"]), *cells, worst]), "|")


def print_differences(summary: dict[str, Any]) -> None:
    if all(set(methods) <= {BASELINE} for methods in summary.values()):
        return
    print(f"\nPaired difference from {BASELINE}, with the 95 % bootstrap interval of its mean\n")
    print("| set | method | measure | difference | interval | pictures better | verdict |")
    print("|---" * 7 + "|")
    for name, methods in summary.items():
        for method, entry in methods.items():
            for column in HIGHER_IS_BETTER:
                if d := entry.get(column, {}).get("minus_bicubic"):
                    interval = f"{d['low']:+.4f} to {d['high']:+.4f}"
                    share = f"{d['better'] * d['n']:.0f} of {d['n']}"
                    cells = [name, method, column, f"{d['mean']:+.4f}", interval, share]
                    print("|", " | ".join([*cells, d["verdict"]]), "|")


def print_targets(summary: dict[str, Any]) -> None:
    """Say of each thing the model must do whether it does it, as far as it was measured."""
    for name, methods in summary.items():
        if OURS in methods:
            for holds, text in targets_of(name, methods[OURS]):
                print(f"{'holds' if holds else 'FAILS'}  {name}: {text}", file=sys.stderr)


def targets_of(name: str, ours: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    """Check our means of one set."""
    if name != "clean":
        for column in ("lpips", "dists", "niqe"):
            if d := ours.get(column, {}).get("minus_bicubic"):
                yield d["verdict"] == "better", f"{column} better than bicubic, not by noise alone"
    if name == "val" and (d := ours["psnr_y"]["minus_bicubic"]):
        yield d["mean"] >= -3, "PSNR-Y at most 3 dB under bicubic"
    if name == "clean":
        yield ours["lr_psnr"]["mean"] >= 24, "lr_psnr at least 24 dB"
    yield ours["color_shift"]["mean"] <= 2, "colour shift at most 2 of 255"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write the inputs and the enlarged pictures")
    make.add_argument("--val", type=Path, help="folder or tar of good photographs")
    make.add_argument("--rp60", type=Path, help="folder of real low-resolution photographs")
    make.add_argument("--out", type=Path, required=True)
    make.add_argument("--methods", nargs="+", choices=(BASELINE, OURS), default=[BASELINE, OURS])
    make.add_argument("--model", default="nsarm-nano", help="as nsarm upscale takes it")
    make.add_argument("--seed", type=int, default=0, help="of the degradation and the sampling")
    make.add_argument("--limit", type=int, help="take the first N pictures of each set")
    make.add_argument("--temperature", type=float, help="default: the model's")
    make.add_argument("--top-p", type=float, help="default: the model's")
    make.add_argument("--color", help="default: the model's")
    make.add_argument("--device", default="auto")
    make.add_argument("--precision", default="auto")
    make.add_argument("--overwrite", action="store_true", help="make the methods' pictures again")
    measuring = commands.add_parser("measure", help="measure what make wrote")
    measuring.add_argument("--out", type=Path, required=True, help="the folder that make filled")
    measuring.add_argument("--json", type=Path, help="report (default: OUT/measures.json)")
    measuring.add_argument("--csv", type=Path, help="one line per picture")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    args = parse()
    if args.command == "measure":
        measure(args.out, args.json or args.out / "measures.json", args.csv)
    else:
        # Only here, because `measure` runs in environments without nsarm.
        from nano_pictures import make

        make(args)

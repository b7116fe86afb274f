"""Leave stages of NSARM's training out, one at a time, as in section 4.4 of the paper.

    python benchmarks/ablation.py --model DIR --data train --val val.tar --lpips FILE --out ablation

`--model` is a trained nsarm-nano: its autoencoder and, where the first stage is not left out, its
transformation network are taken from there; transformers begin afresh. Every variant is runs of
`nsarm train` with the same number of updates, on one thread, and what is there already is not run
again. Cross-entropy and right bits are those of the variant's own validation; the pictures are then
sampled at `--temperature` by the validation of the decoder's stage, whose only update changes
nothing. Prints a table and writes it as ablation.json; the folder of each variant has its pictures,
and ablation.png has one picture of all of them.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

PRESET = "nsarm-nano"
ACROSS = 5
"""Pictures in a row of the comparison."""
LABEL = 16
"""Pixels of a line of text."""
STILL = {"steps": 1, "lr": 1e-12}
"""Updates that leave a model as it is: its validation is what is wanted."""


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        stage: of `nsarm train`.
        title: for the table.
        stage1: whether the transformation network is the trained one.
        prior: whether the transformer begins as the prior.
        given: whether the transformer is that of the model given.
        changes: to the common settings.
    """

    stage: str
    title: str
    stage1: bool = True
    prior: bool = True
    given: bool = False
    changes: tuple[tuple[str, float], ...] = ()


PRIOR = "prior"
VARIANTS = {
    PRIOR: Variant("prior", "the prior itself", stage1=False, prior=False),
    "stage1": Variant("stage1", "stage 1 alone, without a transformer", changes=(*STILL.items(),)),
    "stage1-prior": Variant("stage2", "stage 1 alone, before the prior", changes=(*STILL.items(),)),
    "stage2": Variant("stage2", "stage 2 alone", stage1=False),
    "both": Variant("stage2", "both"),
    "no-prior": Variant("stage2", "both, without the prior", prior=False),
    "given": Variant(
        "stage2", "both, as given", prior=False, given=True, changes=(*STILL.items(),)
    ),
    "no-flips": Variant("stage2", "both, without self-correction", changes=(("flip", 0.0),)),
}


def settings(variant: Variant, args: argparse.Namespace) -> dict[str, str | float]:
    """What the settings file of a variant says."""
    common: dict[str, str | float] = {
        "model": PRESET,
        "autoencoder_from": str(args.model),
        "steps": args.steps,
        "batch": args.batch,
        "crop": 256,
        "shrink": 1.5,
        "lr": 1.5e-3,
        "final_lr": 0.02,
        "warmup": 20,
        "validate_every": args.steps,
        "validate_batches": args.validate_batches,
        "perceptual_weights": str(args.lpips),
        "tracker": "none",
    }
    if variant.stage != PRIOR:
        common["degradation"] = "realesrgan-light"
    if variant.stage != "stage1":
        common |= {"flip": 0.1, "resize": "area"}
    if variant.stage1:
        common["transformation_from"] = str(args.model)
    if variant.stage != "stage1" and (variant.prior or variant.given):
        common["transformer_from"] = str(args.model if variant.given else args.out / PRIOR)
    return common | dict(variant.changes)


def figures_of(name: str, variant: Variant, args: argparse.Namespace) -> dict[str, float]:
    """Train a variant and sample its pictures: the last validation of both."""
    chosen = settings(variant, args)
    figures = train(name, variant.stage, chosen, args)
    if variant.stage != "stage2":
        return figures
    left_out = ("flip", "resize", "autoencoder_from", "transformation_from", "transformer_from")
    sampling = {key: value for key, value in chosen.items() if key not in left_out}
    sampling |= {"model": str(args.out / name), "temperature": args.temperature} | STILL
    return figures | train(f"{name}-sampled", "decoder", sampling, args)


def train(
    name: str, stage: str, chosen: dict[str, str | float], args: argparse.Namespace
) -> dict[str, float]:
    """Do a run unless it has been done; its last validation."""
    out = args.out / name
    metrics = out / "metrics.jsonl"
    if not (out / "model.safetensors").is_file():
        file = args.out / f"{name}.toml"
        lines = [f"{key} = {json.dumps(value)}" for key, value in chosen.items()]
        file.write_text("\n".join(lines) + "\n", "utf-8")
        command = [sys.executable, "-m", "nsarm_cli", "train", stage]
        command += ["--config", str(file), "--data", *args.data, "--val", str(args.val)]
        command += ["--out", str(out), "--threads", "1"]
        done = subprocess.run(command, stdout=sys.stderr, check=False)  # noqa: S603  (our own)
        if done.returncode:
            sys.exit(f"{name}: nsarm train ended with exit code {done.returncode}")
    last = json.loads(metrics.read_text("utf-8").splitlines()[-1])
    mark = "validation."
    return {key.removeprefix(mark): last[key] for key in last if key.startswith(mark)}


def comparison(out: Path, names: list[str], picture: int) -> Image.Image:
    """One picture of the first validation batch by each variant, between its input and original."""
    columns: list[tuple[str, Image.Image]] = []
    for name in names:
        folder = out / (f"{name}-sampled" if VARIANTS[name].stage == "stage2" else name)
        (latest,) = sorted(folder.glob("validation-*.png"))[-1:]
        with Image.open(latest) as grid:
            side = grid.height // 3
            rows = [
                grid.convert("RGB").crop(
                    (picture * side, row * side, (picture + 1) * side, (row + 1) * side)
                )
                for row in range(3)
            ]
        columns = columns or [("input", rows[0])]
        columns.append((name, rows[1]))
    columns.append(("original", rows[2]))
    down = -(-len(columns) // ACROSS)
    sheet = Image.new("RGB", (side * ACROSS, (side + LABEL) * down), "white")
    for number, (name, tile) in enumerate(columns):
        x, y = number % ACROSS * side, number // ACROSS * (side + LABEL)
        ImageDraw.Draw(sheet).text((x + 4, y + 2), name, fill="black")
        sheet.paste(tile, (x, y + LABEL))
    return sheet


def main(arguments: list[str] | None = None) -> None:
    """Train every variant and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained nsarm-nano")
    parser.add_argument("--data", nargs="+", required=True, help="as for nsarm train")
    parser.add_argument("--val", type=Path, required=True, help="as for nsarm train")
    parser.add_argument("--lpips", type=Path, required=True, help="its weights, safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--validate-batches", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=0.25)
    parser.add_argument("--picture", type=int, default=0, help="which one to show")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    found = {name: figures_of(name, variant, args) for name, variant in VARIANTS.items()}
    (args.out / "ablation.json").write_text(json.dumps(found, indent=1), "utf-8")
    shown = [name for name in VARIANTS if name != PRIOR]
    comparison(args.out, shown, args.picture).save(args.out / "ablation.png")
    print("| variant | cross-entropy | right bits | PSNR, dB | LPIPS | NIQE |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in shown:
        figures = found[name]
        is_stage2 = VARIANTS[name].stage == "stage2"
        cells = [figures["loss"] if is_stage2 else None, figures.get("bits.6")]
        cells += [figures[key] for key in ("psnr", "perceptual", "niqe")]
        words = " | ".join("" if value is None else f"{value:.3f}" for value in cells)
        print(f"| {VARIANTS[name].title} | {words} |")


if __name__ == "__main__":
    main()

"""`nano_quality.py make`: the test sets and what bicubic and the model make of them."""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import nsarm_cli
from nsarm_cli import Upscaler
from nsarm_cli.errors import NsarmError
from nsarm_cli.imaging.files import read_image, write_image
from nsarm_cli.imaging.finding import find_images
from nsarm_cli.models.interface import Sampling
from nsarm_cli.runtime import choose_device, choose_dtype
from nsarm_cli.training.photos import PhotoStore
from nsarm_cli.weights.catalog import find_model
from pictures import bicubic, degraded, photos, reduced, whole_scales


class Model:
    """The model as the arguments ask for it, loaded when the first picture needs it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args

    @cached_property
    def _upscaler(self) -> Upscaler:
        a = self._args
        return Upscaler.from_pretrained(a.model, device=a.device, precision=a.precision)

    @cached_property
    def _sampling(self) -> Sampling:
        asked = {"temperature": self._args.temperature, "top_p": self._args.top_p}
        given = {name: value for name, value in asked.items() if value is not None}
        return replace(self._upscaler.sampling, **given)

    def enlarge(self, lr: Image.Image) -> Image.Image:
        """Enlarge one picture."""
        return self._upscaler.upscale(
            lr, seed=self._args.seed, sampling=self._sampling, color=self._args.color
        )

    def settings(self) -> dict[str, Any]:
        """What the pictures depend on, for the record."""
        a = self._args
        folder = Path(a.model)
        if not folder.is_dir():
            folder = find_model(a.model).files[0].location.parent
        device, _ = choose_device(a.device)
        dtype, _ = choose_dtype(a.precision, device)
        sampling = asdict(self._sampling)  # loads the model, so its files are there
        weights = (folder / "model.safetensors").read_bytes()
        return {
            "model": a.model,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "sampling": sampling,
            "color": a.color or "the model's",
            "device": str(device),
            "precision": str(dtype).removeprefix("torch."),
            "nsarm": nsarm_cli.__version__,
            "torch": torch.__version__,
        }


def make(args: argparse.Namespace) -> None:
    """Write the sets, then each method's pictures, leaving alone what exists."""
    try:
        _make(args)
    except NsarmError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def _make(args: argparse.Namespace) -> None:
    if args.val is None and args.rp60 is None:
        sys.exit("nothing to make: give --val, --rp60 or both")
    model = Model(args)
    enlargers: dict[str, Callable[[Image.Image], Image.Image]] = {
        "bicubic": bicubic,
        "nsarm": model.enlarge,
    }
    settings: dict[str, Any] = {"seed": args.seed}
    if "nsarm" in args.methods:
        settings["nsarm"] = model.settings()
    _record(args.out / "settings.json", settings, overwrite=args.overwrite)

    names = {}
    if args.val is not None:
        names["val"] = names["clean"] = _make_val(args)
    if args.rp60 is not None:
        names["rp60"] = _make_rp60(args)
    for name, stems in names.items():
        for method in args.methods:
            began, made = time.perf_counter(), 0
            for stem in stems:
                target = args.out / name / method / f"{stem}.png"
                if args.overwrite or not target.exists():
                    lr = read_image(args.out / name / "lr" / f"{stem}.png")
                    _save(enlargers[method](lr), target)
                    made += 1
            seconds = time.perf_counter() - began
            print(f"{name}/{method}: made {made} of {len(stems)} in {seconds:.1f} s")


def _make_val(args: argparse.Namespace) -> list[str]:
    store = PhotoStore([args.val], cache_bytes=0)
    index = dict(list(photos(store).items())[: args.limit])
    for stem, i in index.items():
        places = [args.out / "val", args.out / "clean"]
        targets = [place / part / f"{stem}.png" for place in places for part in ("hr", "lr")]
        if all(target.exists() for target in targets):
            continue
        hr = whole_scales(Image.fromarray(store[i]))
        made = (hr, degraded(hr, stem, args.seed), hr, reduced(hr))
        for picture, target in zip(made, targets, strict=True):
            _save(picture, target)
    return list(index)


def _make_rp60(args: argparse.Namespace) -> list[str]:
    files = {file.stem: file for file in find_images([args.rp60])[: args.limit]}
    for stem, file in files.items():
        target = args.out / "rp60" / "lr" / f"{stem}.png"
        if not target.exists():
            _save(read_image(file), target)
    return list(files)


def _save(picture: Image.Image, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_image(picture, target, overwrite=True)


def _record(path: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Write the settings; refuse to mix pictures of two settings in one folder.

    Args:
        path: of the record.
        settings: of this run.
        overwrite: the pictures of the methods will be made again; the inputs never are.
    """
    settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    earlier = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    differing = [key for key in settings if earlier.get(key, settings[key]) != settings[key]]
    if "seed" in differing or (differing and not overwrite):
        remedy = "another --out" if "seed" in differing else "--overwrite or another --out"
        sys.exit(
            f"{path.parent}: was made with other settings or weights (see {path.name}); "
            f"pass {remedy}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(earlier | settings, indent=1), "utf-8")

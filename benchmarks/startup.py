"""Where the time to the first picture goes when nothing has been started yet.

    python benchmarks/startup.py [--repeat 5] [--threads 1] [--model nsarm-nano]

Every run is a process of its own, and the files are in the system's cache. The parts are those of
one process that enlarges one window with the model, each from the end of the one before. Beside
them stand whole commands: `nsarm --help`, and `nsarm upscale` on the same window. Prints medians,
least and most, in processor seconds (over all threads) and in seconds that passed.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

SIDE = 64

Spent = tuple[float, float]
"""Processor seconds and seconds."""


def parts(args: Namespace, born: float) -> dict[str, Spent]:
    """Enlarge a window in this process.

    Args:
        args: of the command line.
        born: when the process was started, as `time.time` says.

    Returns:
        What each part took, in order.
    """
    ends: list[Spent] = [(0.0, born)]
    spent: dict[str, Spent] = {}

    def end(part: str) -> None:
        ends.append((time.process_time(), time.time()))
        spent[part] = (ends[-1][0] - ends[-2][0], ends[-1][1] - ends[-2][1])

    end("Python itself")
    import torch  # noqa: PLC0415  (what is measured)

    end("import torch")
    from PIL import Image  # noqa: PLC0415

    from nsarm_cli.pipeline import Upscaler  # noqa: PLC0415

    for late in ("memory.session", "weights.families"):  # what `from_pretrained` imports
        import_module(f"nsarm_cli.{late}")
    end("import nsarm")
    torch.set_num_threads(args.threads)
    upscaler = Upscaler.from_pretrained(args.model, device="cpu")
    end("load the model")
    lr = Image.effect_noise((SIDE, SIDE), 40).convert("RGB")
    upscaler.upscale(lr)
    end("first window")
    upscaler.upscale(lr)
    end("second window")
    return spent


def main() -> None:
    """Print the table."""
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="nsarm-nano")
    parser.add_argument("--child", type=float, help="for the script itself: its time of birth")
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(parts(args, args.child)))
        return
    rows: dict[str, list[Spent]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.repeat):
            for name, spent in run(args, Path(folder)).items():
                rows.setdefault(name, []).append(spent)
    width = max(map(len, rows))
    print(f"{'':{width}}  {'processor, s':>20}  {'passed, s':>20}")
    for name, runs in rows.items():
        cells = [spread([spent[i] for spent in runs]) for i in (0, 1)]
        print(f"{name:{width}}  " + "  ".join(f"{cell:>20}" for cell in cells))


def run(args: Namespace, folder: Path) -> dict[str, Spent]:
    """Run everything once."""
    own = [__file__, "--threads", str(args.threads), "--model", args.model]
    _, said = command([*own, "--child", str(time.time())], folder)
    found: dict[str, Spent] = {name: tuple(spent) for name, spent in json.loads(said).items()}
    picture = folder / "window.png"
    if not picture.exists():
        from PIL import Image  # noqa: PLC0415  (after the first measurement)

        Image.effect_noise((SIDE, SIDE), 40).convert("RGB").save(picture)
    found["nsarm --help"], _ = command(["-m", "nsarm_cli", "--help"], folder)
    upscale = ["-m", "nsarm_cli", "upscale", str(picture), "-o", str(folder / "large.png")]
    upscale += ["--overwrite", "--device", "cpu", "--model", args.model]
    found["nsarm upscale"], _ = command([*upscale, "--threads", str(args.threads)], folder)
    return found


def command(arguments: Sequence[str], folder: Path) -> tuple[Spent, str]:
    """Run Python with these arguments to its end: what it took, and what it printed."""
    output = folder / "output"
    began = time.perf_counter()
    with output.open("wb") as file:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *arguments],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1)],
        )
        _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"python {' '.join(arguments)} failed")
    return (usage.ru_utime + usage.ru_stime, seconds), output.read_text(encoding="utf-8")


def spread(values: list[float]) -> str:
    """Median, and least and most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()

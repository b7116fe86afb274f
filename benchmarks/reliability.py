"""Try hostile files by the thousand and print the table of docs/reliability.md.

    PYTHONPATH=src:tests:. python benchmarks/reliability.py --cases 20000

Every 250 cases run in a process of their own, so that a crash of a decoder is counted and not
suffered.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.reliability.models import save_small_model
from tests.reliability.trials import Trials

BLOCK = 250


def work(folder: Path, model: Path, kind: str, first: int, count: int) -> None:
    """Run some cases and print what came of each, as JSON."""
    trials = Trials(folder, model)
    outcomes: Counter[str] = Counter()
    for case in range(first, first + count):
        row = trials.picture_format(case).rpartition(".")[2] if kind == "pictures" else kind
        try:
            outcome = trials.kinds[kind](case)
        except Exception as error:
            outcome = "bug"
            print(f"{kind} {case}: {type(error).__name__}: {error}", file=sys.stderr)
        outcomes[f"{row} {outcome}"] += 1
    # Linux counts in kilobytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"outcomes": outcomes, "peak_mb": peak}))


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2500, help="of each kind")
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--block", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.block:
        folder, model, kind, first, count = options.block
        work(Path(folder), Path(model), kind, int(first), int(count))
        return
    rows: dict[str, Counter[str]] = {}
    peak = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_small_model(folder / "whole")
        for kind in options.kinds or Trials(folder, model).kinds:
            for first in range(options.first, options.first + options.cases, BLOCK):
                count = min(BLOCK, options.first + options.cases - first)
                command = [sys.executable, __file__, "--block", str(folder), str(model), kind]
                command += [str(first), str(count)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603
                if done.returncode != 0:
                    rows.setdefault(kind, Counter())["crashed"] += 1
                    print(f"{kind} {first}: exit {done.returncode}", file=sys.stderr)
                    continue
                result = json.loads(done.stdout.splitlines()[-1])
                peak = max(peak, result["peak_mb"])
                for outcome, number in result["outcomes"].items():
                    row, _, what = outcome.rpartition(" ")
                    rows.setdefault(row, Counter())[what] += number
    print("| spoilt | tried | refused | used | error of nsarm | crashed |")
    print("|---|---:|---:|---:|---:|---:|")
    for row, counts in rows.items():
        figures = [counts.total(), *(counts[k] for k in ("refused", "used", "bug", "crashed"))]
        print(f"| {row} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")
    print(f"\npeak memory of a process: {peak:.0f} MB")


if __name__ == "__main__":
    main()

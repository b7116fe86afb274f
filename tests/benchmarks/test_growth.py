"""The growth of cost is measured on real processes and fitted by a straight line."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest


def test_a_straight_line_is_found_again_and_a_bend_is_told(script):
    growth = script("growth")
    points = [(x, 3 + 2 * x) for x in (0.02, 1.0, 64.0)]
    a, b, error = growth.straight_line(points)
    assert (a, b) == pytest.approx((3, 2))
    assert error < 1e-9
    assert growth.straight_line([*points, (256.0, 2000.0)])[2] > 0.2


def test_a_process_is_charged_with_its_memory(script):
    # From a small process, as a child's peak starts at the size of the parent that it forked from.
    work = "x = bytearray(b'1') * 300_000_000"
    folder = str(Path(script("growth").__file__).parent)
    code = (
        f"import sys; sys.path.insert(0, {folder!r}); import growth; "
        f"print(*growth.run([sys.executable, '-c', {work!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, processor, peak = map(float, done.stdout.split())
    assert 3e8 < peak < 6e8
    assert 0 < processor < seconds + 1


def test_a_command_that_fails_ends_the_benchmark_with_what_it_said(script):
    with pytest.raises(SystemExit, match="no luck"):
        script("growth").run([sys.executable, "-c", "import sys; sys.exit('no luck')"])


def test_the_plot_has_a_point_for_every_size_and_curve(script):
    growth = script("growth")
    sizes = [growth.Growth(x, (x, 2 * x), x, 4 * 10**8) for x in (0.1, 1.0, 10.0)]
    drawing = ET.fromstring(growth.plot(sizes))  # noqa: S314  (made a line above)
    assert len(drawing.findall("{*}circle")) == 6

"""Curves as inline SVG: scores from high to low, or a measure against a strength."""

from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 40

# Okabe and Ito's colours, told apart with any colour vision; dashes tell them apart in grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 4")

Points = Sequence[tuple[float, float]]


def figure(
    lines: Mapping[str, Points],
    *,
    title: str,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Draw lines over one pair of axes.

    Args:
        lines: name -> points; at least one point in all.
        title: what a screen reader says.
        x_label: under the horizontal axis.
        y_label: beside the vertical axis.
        levels: name -> height of a dotted line across.

    Returns:
        A figure element with its legend.
    """
    levels = levels or {}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points] + list(levels.values())
    x_low, x_high = _span(xs)
    y_low, y_high = _span(ys, 0.05)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    left, right, floor = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{left} {_TOP}V{floor}H{right}"/>']
    for step in range(5):
        y = y_low + (y_high - y_low) * step / 4
        _, at = place(x_low, y)
        parts.append(f'<text x="{left - 6}" y="{at + 4}" text-anchor="end">{y:.3g}</text>')
    for x in _ticks(xs):
        at, _ = place(x, y_low)
        parts.append(f'<text x="{at}" y="{floor + 17}" text-anchor="middle">{x:.4g}</text>')
    for name, level in levels.items():
        _, at = place(x_low, level)
        parts.append(f'<path class="level" d="M{left} {at}H{right}"/>')
        label = f'<text x="{right}" y="{at - 3}" text-anchor="end">{escape(name)}</text>'
        parts.append(label)
    for number, points in enumerate(lines.values()):
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" {_stroke(number)}/>')
        if len(points) == 1:
            x, y = place(*points[0])
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{_COLOURS[number % 7]}"/>')
    middle = (left + right) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    legend = "".join(
        f'<li><svg viewBox="0 0 40 10" aria-hidden="true"><path d="M0 5H40" {_stroke(n)}/></svg>'
        f"{escape(name)}</li>"
        for n, name in enumerate(lines)
    )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
        f'<ul class="legend">{legend}</ul><figcaption>{escape(y_label)}</figcaption></figure>'
    )


def _stroke(number: int) -> str:
    colour, dash = _COLOURS[number % 7], _DASHES[number % 7]
    return f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"'


def _ticks(xs: Sequence[float]) -> list[float]:
    """Give up to six of the places that have points, the first and the last among them."""
    places = sorted(set(xs))
    steps = min(len(places) - 1, 5) or 1
    return sorted({places[round(i * (len(places) - 1) / steps)] for i in range(steps + 1)})


def _span(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)

"""The part of the report that shows pictures: a slider between any two, and what to look at."""

import json
from html import escape

from nsarm_cli.evaluation.cases import LR, QUALITY, Cases


def viewer(cases: Cases, ours: str) -> str:
    """Lay out the pictures of a set.

    Args:
        cases: at least one picture.
        ours: the method that is on the right at first; the input is on the left.

    Returns:
        HTML; its script fills in the pictures, which are in it once each.
    """
    data = [
        {"name": c.name, "width": c.size[0], "height": c.size[1], "pictures": c.pictures}
        for c in cases.pictures
    ]
    labels = list(cases.pictures[0].pictures)
    names = "".join(f"<option>{escape(c.name)}</option>" for c in cases.pictures)
    # In a script element only "<" could end the text early.
    text = json.dumps(data).replace("<", "\\u003c")
    return (
        '<div class="viewer"><div class="choices">'
        f"<label>picture<select>{names}</select></label>"
        f"<label>left<select>{_options(labels, LR)}</select></label>"
        f"<label>right<select>{_options(labels, ours)}</select></label></div>"
        '<div class="stage"><img alt=""><div class="over"><img alt=""></div>'
        '<div class="seam"></div></div>'
        '<input type="range" min="0" max="100" value="50" aria-label="seam between left and right">'
        '<p class="soft">Move the seam with the arrow keys or drag it. The pictures below go to '
        f"the slider. All are shown as WebP of quality {QUALITY}; measured were the pictures "
        f"themselves.</p>{_groups(cases)}"
        f'<script type="application/json">{text}</script></div>'
    )


def _options(labels: list[str], selected: str) -> str:
    return "".join(
        f"<option{' selected' if label == selected else ''}>{escape(label)}</option>"
        for label in labels
    )


def _groups(cases: Cases) -> str:
    places = {case.name: place for place, case in enumerate(cases.pictures)}
    parts = []
    for group in cases.groups:
        buttons = "".join(
            f'<li><button type="button" data-place="{places[name]}" '
            f'data-method="{escape(group.method)}"><img alt="" width="120" height="120">'
            f"<span>{escape(name)}</span><span>{escape(remark)}</span></button></li>"
            for name, remark in group.names
        )
        parts.append(f'<h4>{escape(group.title)}</h4><ul class="thumbs">{buttons}</ul>')
    return "".join(parts)

"""The parts of the report on speed and on growing damage, from what results.json has of them."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nsarm_cli.evaluation.curves import figure
from nsarm_cli.evaluation.published import PAPER
from nsarm_cli.evaluation.tables import table


def sweeps_section(sweeps: Sequence[Mapping[str, Any]]) -> str:
    """Draw a figure for each set and kind of damage, with its numbers below."""
    parts = ['<section id="sweeps"><h2>Growing damage</h2>']
    parts.append(
        "<p>The inputs of each set are damaged further before the methods get them; strength 0 is "
        "the set itself. Curves are means over the pictures.</p>"
    )
    for sweep in sweeps:
        title = f"{sweep['set']}: {sweep['kind']}"
        curves = {
            method: [p for p in zip(sweep["strengths"], values, strict=True) if p[1] is not None]
            for method, values in sweep["score_means"].items()
        }
        parts.append(f"<h3>{escape(title)}</h3>")
        if not any(curves.values()):
            parts.append("<p>No picture has a score.</p>")
            continue
        parts.append(
            figure(
                curves,
                title=f"{title}, mean score against strength",
                x_label=sweep["unit"],
                y_label=f"Score: {sweep['score']}",
            )
        )
        rows = [
            f"<tr><td>{escape(method)}</td>{''.join(map(_cell, values))}</tr>"
            for method, values in sweep["score_means"].items()
        ]
        heads = [("method", ""), *((f"{s:g}", sweep["unit"]) for s in sweep["strengths"])]
        parts.append(table(f"Mean score at each {sweep['unit']}", heads, rows))
    return "".join(parts) + "</section>"


def speed_section(speed: Mapping[str, Any]) -> str:
    """Lay out the seconds of each stage, with what they contain and the paper's beside."""
    sizes = " to ".join(f"{w}x{h}" for w, h in (speed["input"], speed["output"]))
    peak = speed["peak_memory"]
    memory = "not told by this system" if peak is None else f"{peak / 1e6:,.0f} MB"
    count = speed["parameters"]
    facts = [
        f"{speed['model']}, {speed['precision']}: {sizes}, protocol {speed['protocol']}; median of "
        f"{speed['repeat']} runs after {speed['warmup']} to warm up.",
        speed["inside"],
        f"Peak memory: {memory} ({speed['peak_memory_kind']}). Parameters: "
        + ("not known." if count is None else f"{count:,}."),
    ]
    parts = ['<section id="speed"><h2>Speed</h2>']
    parts += [f"<p>{escape(fact)}</p>" for fact in facts]
    whole = {"stage": "one picture, all stages", "seconds": speed["seconds"]}
    parts.append(_stages("One picture", [*speed["stages"], whole]))
    if speed["window"] is not None:
        side = speed["window"]["side"]
        caption = f"Inside the model: one window of {side}x{side} pixels"
        parts.append(_stages(caption, speed["window"]["stages"]))
    rows = [
        f'<tr class="published"><td>{escape(row["method"])}</td><td>{row["seconds"]:g}</td>'
        f"<td>{row['output']}</td><td>{row['parameters']:,}</td><td>{escape(row['hardware'])}</td>"
        f'<td class="long">{escape(row["source"])}</td></tr>'
        for row in speed["published"]
    ]
    heads = [(h, "") for h in ("method", "seconds", "output", "parameters", "on", "source")]
    parts.append(table(f"Published: {PAPER}", heads, rows))
    return "".join(parts) + "</section>"


def _stages(caption: str, stages: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td>{escape(s['stage'])}</td>"
        + "".join(
            f'<td data-value="{s["seconds"][which]!r}">{s["seconds"][which]:.4f}</td>'
            for which in ("median", "least", "most")
        )
        + "</tr>"
        for s in stages
    ]
    heads = [("stage", ""), ("seconds", "median"), ("least", ""), ("most", "")]
    return table(caption, heads, rows)


def _cell(value: float | None) -> str:
    return "<td>-</td>" if value is None else f'<td data-value="{value!r}">{value:.4f}</td>'

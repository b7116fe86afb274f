"""The report as one page that opens from disk: it loads nothing and needs no network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from nsarm_cli.evaluation.cases import Cases
from nsarm_cli.evaluation.curves import figure
from nsarm_cli.evaluation.extra_page import speed_section, sweeps_section
from nsarm_cli.evaluation.measures import Measure
from nsarm_cli.evaluation.published import PAPER, PublishedRow, published_rows
from nsarm_cli.evaluation.results import Report, SetReport, ranking
from nsarm_cli.evaluation.robustness import LEVELS, Robustness
from nsarm_cli.evaluation.tables import table
from nsarm_cli.evaluation.viewer import viewer

_WEB = Path(__file__).parent / "web"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(report: Report, cases: Mapping[str, Cases]) -> str:
    """Lay out a report.

    Args:
        report: everything that was measured.
        cases: set -> pictures to show; sets without are shown by their tables alone.

    Returns:
        HTML, complete in itself.
    """
    names = [entry.result.picture_set.name for entry in report.sets]
    links = "".join(f'<a href="#set-{i}">{escape(name)}</a>' for i, name in enumerate(names))
    sections = "".join(
        _section(i, entry, report.measures, cases.get(name))
        for i, (name, entry) in enumerate(zip(names, report.sets, strict=True))
    )
    if "sweeps" in report.extra:
        sections += sweeps_section(report.extra["sweeps"])
        links += '<a href="#sweeps">Growing damage</a>'
    if "speed" in report.extra:
        sections += speed_section(report.extra["speed"])
        links += '<a href="#speed">Speed</a>'
    facts = report.facts
    machine = ", ".join(
        f"{key.replace('_', ' ')} {value}"
        for key, value in facts.get("machine", {}).items()
        if value not in (None, "")
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>Evaluation: {escape(", ".join(names))}</title>
<style>{(_WEB / "report.css").read_text("utf-8")}</style></head><body>
<header><h1>Evaluation: {escape(", ".join(names))}</h1>
<p class="soft">nsarm {escape(str(facts.get("nsarm", "")))}, {escape(str(facts.get("date", "")))},
{escape(machine)}</p><nav aria-label="Sets">{links}<a href="#measures">Measures</a></nav></header>
<main>{sections}{_measures(report)}</main>
<script>{(_WEB / "report.js").read_text("utf-8")}</script></body></html>
"""


def _section(
    number: int, entry: SetReport, measures: Sequence[Measure], cases: Cases | None
) -> str:
    result = entry.result
    shown = [m for m in measures if any(m.name in s for s in entry.summaries.values())]
    notes = "".join(
        f"<li><b>{escape(method)}</b>: {escape(note)}</li>" for method, note in result.notes.items()
    )
    parts = [
        f'<section id="set-{number}"><h2>{escape(result.picture_set.name)}</h2>',
        f"<p>{len(result.picture_set.items)} pictures. {escape(result.picture_set.source)}.</p>",
        f"<p>Protocol {escape(result.described)}.</p>",
        f"<ul>{notes}</ul>",
        "<h3>Means</h3>",
        _means(entry, shown),
    ]
    for name in dict.fromkeys(name for values in result.whole.values() for name in values):
        found = ", ".join(f"{m} {v[name]:.2f}" for m, v in result.whole.items() if name in v)
        parts.append(f"<p>{escape(name.upper())} of the whole set: {escape(found)}.</p>")
    if entry.differences:
        parts += [f"<h3>{escape(entry.ours)} less the others</h3>", _differences(entry, shown)]
    parts.append("<h3>Robustness</h3>")
    if entry.robustness is None:
        parts.append(f"<p>{escape(entry.why_unranked)}</p>")
    else:
        parts.append(_robustness(entry.robustness, entry))
    if cases is not None and cases.pictures:
        parts += ["<h3>Pictures</h3>", viewer(cases, entry.ours)]
    return "".join(parts) + "</section>"


def _means(entry: SetReport, shown: Sequence[Measure]) -> str:
    ranks = {m.name: ranking(entry.summaries, m) for m in shown}
    total = len(entry.result.picture_set.items)
    rows = []
    for method, summaries in entry.summaries.items():
        cells = [f"<td>{escape(method)}</td>"]
        for m in shown:
            s = summaries.get(m.name)
            if s is None:
                cells.append('<td data-value="">-</td>')
                continue
            place = ranks[m.name].index(method)
            mark = {0: "best", 1: "second"}.get(place, "")
            over = "" if s.n == total else f", {s.n} pictures"
            cells.append(
                f'<td data-value="{s.mean!r}"><span class="{mark}">{s.mean:.{m.decimals}f}</span> '
                f'<span class="variance">({s.variance:.{m.decimals}f}{over})</span></td>'
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    published = [row for row in published_rows(entry.result.picture_set.name) if row.mean]
    tail = "".join(_published(row, shown) for row in published)
    source = (
        f" Shaded rows are published: {PAPER}, or as their names say; the protocol of each is in "
        "its name."
        if published
        else ""
    )
    heads = [("method", "")] + [
        (f"{m.title} {'↑' if m.is_higher_better else '↓'}", m.variant) for m in shown
    ]
    caption = (
        "Mean (variance); ↑ higher is better, ↓ lower is. Filled mark: best, open mark: second "
        f"best.{source}"
    )
    return table(caption, heads, rows, tail)


def _published(row: PublishedRow, shown: Sequence[Measure]) -> str:
    cells = []
    for m in shown:
        text = f"{row.mean[m.name]:.{m.decimals}f}" if m.name in row.mean else ""
        if m.name in row.variance:
            text += f' <span class="variance">({row.variance[m.name]:.{m.decimals}f})</span>'
        cells.append(f"<td>{text}</td>")
    name = escape(f"{row.method}, {row.protocol.value}")
    name += f' <span class="variance">({escape(row.source)})</span>'
    return f'<tr class="published"><td class="source">{name}</td>{"".join(cells)}</tr>'


def _differences(entry: SetReport, shown: Sequence[Measure]) -> str:
    rows = []
    for method, found in entry.differences.items():
        for m in shown:
            if (d := found.get(m.name)) is None:
                continue
            rows.append(
                f'<tr><td>{escape(method)}</td><td class="text">{escape(m.title)}</td>'
                f'<td data-value="{d.mean!r}">{d.mean:+.{m.decimals}f}</td>'
                f"<td>{d.low:+.{m.decimals}f} to {d.high:+.{m.decimals}f}</td>"
                f'<td data-value="{d.better!r}">{d.better * d.n:.0f} of {d.n}</td>'
                f'<td class="text">{d.verdict}</td></tr>'
            )
    heads = [(h, "") for h in ("against", "measure", "difference", "95 %", "better on", "verdict")]
    caption = "Over the same pictures; intervals of the mean from a paired bootstrap."
    return table(caption, heads, rows)


def _robustness(found: Robustness, entry: SetReport) -> str:
    rows = [
        f'<tr><td>{escape(method)}</td><td data-value="{s.mean!r}">{s.mean:.4f}</td>'
        f'<td data-value="{s.variance!r}">{s.variance:.4f}</td>'
        + "".join(f"<td>{count}</td>" for count in s.failures.values())
        + f'<td class="long">{escape(", ".join(s.worst))}</td></tr>'
        for method, s in found.methods.items()
    ]
    published = [r for r in published_rows(entry.result.picture_set.name) if r.failures]
    tail = "".join(
        f'<tr class="published"><td>{escape(r.method)}, paper\'s Fig. 4</td><td></td><td></td>'
        + "".join(f"<td>{r.failures[level]}</td>" for level in LEVELS)
        + "<td></td></tr>"
        for r in published
    )
    heads = [(h, "") for h in ("method", "mean", "variance")]
    heads += [(f"{name} <{share:.1f}", "") for name, share in LEVELS.items()]
    heads.append(("worst pictures", ""))
    own = "" if not published else " Published counts are against the paper's own mean."
    caption = (
        f"Score: {found.score.title}. Counts of pictures below shares of the mean over all methods,"
        f" {found.global_mean:.4f}.{own}"
    )
    curves = {
        method: [(float(i), value) for i, value in enumerate(s.curve, 1)]
        for method, s in found.methods.items()
    }
    levels = {f"{name} {share:.1f}": share * found.global_mean for name, share in LEVELS.items()}
    chart = figure(
        curves,
        title=f"Scores of {len(found.methods)} methods, each sorted from high to low",
        x_label="pictures, from the best to the worst of each method",
        y_label=f"Score: {found.score.title}",
        levels=levels,
    )
    left_out = (
        f"<p>Without a score: {escape(', '.join(found.missing))}.</p>" if found.missing else ""
    )
    return table(caption, heads, rows, tail) + left_out + chart


def _measures(report: Report) -> str:
    rows = [
        f"<tr><td>{escape(m.title)}</td>"
        f'<td class="text">{"higher" if m.is_higher_better else "lower"} is better</td>'
        f'<td class="long">{escape(m.variant)}</td></tr>'
        for m in report.measures
    ]
    heads = [("measure", ""), ("points", ""), ("exactly", "")]
    missing = "".join(
        f"<li><b>{escape(e.name)}</b>: {escape(e.reason)}</li>" for e in report.missing
    )
    left_out = f"<h3>Not measured</h3><ul>{missing}</ul>" if missing else ""
    return f'<section id="measures"><h2>Measures</h2>{table("", heads, rows)}{left_out}</section>'

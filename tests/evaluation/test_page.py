"""The report as a page: what it holds, what it never loads, and how it behaves in a browser."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from nsarm_cli.evaluation.cases import choose, collect
from nsarm_cli.evaluation.journal import Journal
from nsarm_cli.evaluation.measures import Missing, own_measures
from nsarm_cli.evaluation.methods import BicubicMethod, FolderMethod
from nsarm_cli.evaluation.page import page
from nsarm_cli.evaluation.pictures import find_set
from nsarm_cli.evaluation.protocol import Protocol
from nsarm_cli.evaluation.results import Report, analyse
from nsarm_cli.evaluation.robustness import Score
from nsarm_cli.evaluation.runner import evaluate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

EVIL = "</script><b>&\"'"
"""A name that would break a page that takes names as they are."""

FIDELITY = Score("fidelity", "PSNR / 50", False, ("psnr_y",), lambda row: row["psnr_y"] / 50)


@pytest.fixture
def report(make_set, make_outputs, tmp_path):
    """Seven pictures under three methods; the first picture and one method have evil names."""
    folder = make_set((EVIL.replace("/", "∕"), *"bcdefg"))
    found = find_set(folder)
    good, bad = make_outputs("good", folder, 1), make_outputs("bad", folder, 20)
    methods = [
        FolderMethod.find("good", good, found),
        FolderMethod.find(EVIL, bad, found),
        BicubicMethod(),
    ]
    measures = [m for m in own_measures() if m.name in {"psnr_y", "ssim_y", "color_shift"}]
    with Journal(tmp_path / "cache") as journal:
        result = evaluate(found, methods, measures, Protocol.NATIVE, journal)
    entry = analyse(result, measures, FIDELITY, "bicubic")
    missing = [Missing("lpips", f"{EVIL} is not there")]
    return Report([entry], measures, missing, {"nsarm": "1", "machine": {"os": "X"}}), methods


def laid_out(report, most=7):
    whole, methods = report
    entry = whole.sets[0]
    return page(whole, {entry.result.picture_set.name: collect(entry, methods, most)})


class Elements(HTMLParser):
    """Counts elements, and keeps attributes and what scripts hold."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.script, self.text = [], [], None, ""
        self.data = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.script = dict(attrs).get("type", "") if tag == "script" else None

    def handle_data(self, data):
        if self.script == "application/json":
            self.data.append(json.loads(data))
        elif self.script is None:
            self.text += data


def test_the_page_loads_nothing(report):
    text = laid_out(report)
    elements = Elements(text)
    assert "default-src 'none'" in text
    assert {"link", "iframe", "object", "base"} & set(elements.tags) == set()
    addresses = [v for k, v in elements.attributes if k in {"src", "href", "srcset", "action"}]
    assert addresses
    assert all(a.startswith("#") for a in addresses)
    assert not re.search(r"@import|url\(|fetch\(|https?://", text)


def test_names_of_files_and_methods_are_text_and_never_markup(report):
    elements = Elements(laid_out(report))
    assert elements.tags.count("script") == 2
    assert elements.text.count(EVIL) >= 6
    assert f"{EVIL} is not there" in elements.text
    shown = {case["name"] for case in elements.data[0]}
    assert EVIL.replace("/", "∕") in shown


def test_every_case_has_the_input_every_method_and_the_reference(report):
    (cases,) = Elements(laid_out(report)).data
    assert len(cases) == 7
    for case in cases:
        assert list(case["pictures"]) == ["LR", "good", EVIL, "bicubic", "reference"]
        assert (case["width"], case["height"]) == (96, 96)
        assert all(p.startswith("data:image/webp;base64,") for p in case["pictures"].values())


def test_cases_are_the_greatest_gains_and_the_worst_of_each_method(report):
    entry = report[0].sets[0]
    gains, *worst = choose(entry, 7)
    assert gains.names == tuple((n, f"+{lead:.3f}") for n, lead in entry.gains)
    for group, (method, spread) in zip(worst, entry.robustness.methods.items(), strict=True):
        assert group.title == f"Worst of {method}"
        assert [n for n, _ in group.names] == list(spread.worst)
        assert [float(v) for _, v in group.names] == sorted(float(v) for _, v in group.names)
    few = choose(entry, 3)
    assert len({n for group in few for n, _ in group.names}) == 3
    assert few[0].names[0] == gains.names[0]
    assert choose(entry, 0) == []


def test_without_a_ranking_the_first_pictures_are_shown(report):
    whole, methods = report
    entry = analyse(whole.sets[0].result, whole.measures, None, "good")
    (group,) = choose(entry, 2)
    assert len(group.names) == 2
    text = page(Report([entry], whole.measures, [], {}), {"pictures": collect(entry, methods, 2)})
    assert "<h3>Pictures</h3>" in text
    assert "Failures are not counted: these measures make no score; add niqe" in text
    assert "<svg" not in text


def test_best_and_second_best_are_marked_in_every_column(report):
    text = laid_out(report)
    columns = len(report[0].measures)
    assert text.count('class="best"') == text.count('class="second"') == columns


def in_browser(text, tmp_path, script):
    """Run a script in the page; it gives what is asserted."""
    path = tmp_path / "report <1>.html"
    probe = (
        f"<script>const probe = () => {{{script}}};\n"
        'document.body.insertAdjacentHTML("beforeend", "<pre id=probe></pre>");\n'
        'document.getElementById("probe").textContent = "PROBE" + btoa(JSON.stringify(probe()))'
        ' + "END";</script></body>'
    )
    path.write_text(text.replace("</body>", probe), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'chromium'}", path.as_uri()],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    found = re.search('<pre id="probe">PROBE(.+)END</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(base64.b64decode(found[1]))


@needs_chromium
def test_in_a_browser_tables_sort_and_the_slider_follows_the_keyboard(report, tmp_path):
    seen = in_browser(
        laid_out(report),
        tmp_path,
        """
        const table = document.querySelector("table");
        const number = (cell) => Number(cell.dataset.value);
        const column = (i) => [...table.tBodies[0].rows].map((r) => number(r.cells[i]));
        const heads = table.tHead.querySelectorAll("button");
        const press = (button) => { button.focus(); button.click();
          return document.activeElement === button; };
        const out = {focus: press(heads[1]), rising: column(1)};
        out.sort = heads[1].closest("th").getAttribute("aria-sort");
        press(heads[1]); out.falling = column(1);
        const viewer = document.querySelector(".viewer");
        const [which, left, right] = viewer.querySelectorAll("select");
        const range = viewer.querySelector("input");
        range.value = 30; range.dispatchEvent(new Event("input"));
        out.clip = viewer.querySelector(".over img").style.clipPath;
        out.spoken = range.getAttribute("aria-valuetext");
        which.selectedIndex = 2; left.value = "reference"; which.dispatchEvent(new Event("change"));
        out.alt = [...viewer.querySelectorAll(".stage img")].map((i) => i.alt);
        const thumb = viewer.querySelectorAll(".thumbs button")[6];
        press(thumb);
        out.thumb = [which.value === thumb.children[1].textContent, right.value,
          thumb.getAttribute("aria-pressed")];
        out.reachable = [...document.querySelectorAll("button, select, input, a[href]")]
          .every((e) => e.tabIndex === 0);
        out.named = [...document.querySelectorAll("select, input")]
          .every((e) => e.labels.length || e.getAttribute("aria-label"));
        return out;
        """,
    )
    assert seen["focus"]
    assert seen["sort"] == "ascending"
    assert seen["rising"] == sorted(seen["rising"]) == seen["falling"][::-1]
    assert len(set(seen["rising"])) == 3
    assert seen["clip"] == "inset(0px 0px 0px 30%)"
    assert seen["spoken"] == "30 % LR"
    assert [alt.rsplit(", ")[-1] for alt in seen["alt"]] == ["reference", "bicubic"]
    assert seen["thumb"] == [True, seen["thumb"][1], "true"]
    assert seen["reachable"]
    assert seen["named"]


@needs_chromium
def test_in_a_browser_the_page_opens_from_disk_and_shows_its_pictures(report, tmp_path):
    path, shot = tmp_path / "report.html", tmp_path / "shot.png"
    path.write_text(laid_out(report), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,2000"]
    subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'c'}", f"--screenshot={shot}", path.as_uri()],
        capture_output=True, timeout=240, check=True,
    )  # fmt: skip
    with Image.open(shot) as picture:
        colours = picture.convert("RGB").getcolors(picture.width * picture.height)
    assert len(colours) > 5_000  # photographs and curves, not an empty page

"""`nsarm eval` through its real entry: files, tables, exit codes and what is refused."""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from loopback import serving


@pytest.fixture(autouse=True)
def without_pyiqa(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)


@pytest.fixture
def evaluate(run_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("nsarm_cli.cli.eval_model.weights_digest", lambda _: "digest")

    def run(*arguments):
        return run_cli("eval", "-o", tmp_path / "out", "--device", "cpu", *arguments)

    return run


@pytest.fixture
def pictures(make_set):
    return make_set()


def results(tmp_path):
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_a_folder_is_measured_and_written_down(evaluate, pictures, tmp_path):
    done = evaluate("--dataset", pictures)
    assert done.code == 0, done.err
    assert "pictures: 3 pictures; native: 24x24 to 96x96 (method)" in done.out
    assert "nsarm-nano" in done.out
    assert "lpips is left out: " in done.err
    assert "clipiqa, musiq, maniqa, topiq are left out: " in done.err
    (entry,) = results(tmp_path)["sets"]
    assert list(entry["methods"]) == ["nsarm-nano", "bicubic"]
    assert entry["methods"]["bicubic"]["summary"]["psnr_y"]["n"] == 3
    assert entry["robustness"] is None or not entry["robustness"]["is_the_papers_score"]
    lines = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert len(lines) == 6
    assert float(lines[0]["psnr_y"]) == entry["methods"]["nsarm-nano"]["pictures"]["a"]["psnr_y"]
    assert {e["name"] for e in results(tmp_path)["not_measured"]} >= {"lpips", "dists"}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert '"name": "a"' in page
    assert "<h3>Not measured</h3>" in page
    assert page.count("<h3>Pictures</h3>") == 1


def test_a_second_run_makes_no_output_again_and_another_seed_is_refused(
    evaluate, pictures, resolver, tmp_path
):
    evaluate("--dataset", pictures)
    before, windows = results(tmp_path)["sets"], len(resolver.batches)
    assert evaluate("--dataset", pictures).code == 0
    assert len(resolver.batches) == windows
    assert results(tmp_path)["sets"] == before
    refused = evaluate("--dataset", pictures, "--seed", 7)
    assert refused.code == 6
    assert "were made with another seed; choose another folder with -o" in refused.err
    assert evaluate("--dataset", pictures, "--seed", 7, "--overwrite").code == 0


def test_an_input_that_changed_is_enlarged_again_and_no_other(
    evaluate, pictures, resolver, tmp_path
):
    evaluate("--dataset", pictures)
    before, windows = results(tmp_path)["sets"][0]["methods"], len(resolver.batches)
    (pictures / "lr" / "a.png").write_bytes((pictures / "lr" / "b.png").read_bytes())
    (pictures / "gt" / "a.png").write_bytes((pictures / "gt" / "b.png").read_bytes())
    assert evaluate("--dataset", pictures).code == 0
    after = results(tmp_path)["sets"][0]["methods"]
    assert len(resolver.batches) == windows + windows // 3
    ours = after["nsarm-nano"]["pictures"]
    assert ours["a"] == ours["b"] == before["nsarm-nano"]["pictures"]["b"]


def test_other_methods_stand_beside_with_differences(evaluate, pictures, make_outputs, tmp_path):
    good, bad = make_outputs("good", pictures, 1), make_outputs("bad", pictures, 40)
    done = evaluate(
        *("--dataset", pictures, "--methods", f"good={good}", "--methods", f"bad={bad}"),
        *("--model", "none", "--measures", "psnr_y, niqe"),
    )
    assert done.code == 0, done.err
    (entry,) = results(tmp_path)["sets"]
    assert list(entry["methods"]) == ["bicubic", "good", "bad"]
    assert entry["compared"] == "good"
    assert entry["differences"]["bad"]["psnr_y"]["verdict"] == "better"
    assert entry["methods"]["good"]["what"] == f"outputs in {good}"


def test_outputs_of_twice_the_size_are_halved_under_the_papers_protocol_only(
    evaluate, pictures, make_outputs
):
    large = make_outputs("large", pictures, 1, factor=2)
    arguments = ("--dataset", pictures, "--model", "none", "--methods", f"m={large}")
    refused = evaluate(*arguments)
    assert refused.code == 3
    assert "m/a: is 192x192, twice the 96x96 that is judged; pass --protocol paper" in refused.err
    assert evaluate(*arguments, "--protocol", "paper").code == 0


def test_one_picture_without_a_reference_is_enough(evaluate, make_set, tmp_path):
    done = evaluate("--dataset", make_set(("only",), gt=False, side=60) / "lr")
    assert done.code == 0, done.err
    (entry,) = results(tmp_path)["sets"]
    row = entry["methods"]["bicubic"]["pictures"]["only"]
    assert set(row) == {"niqe", "lr_psnr", "color_shift"}
    assert entry["differences"]["bicubic"] == {}
    assert entry["robustness"]["score"] == "1 / NIQE, not the paper's score"


def test_measures_that_make_no_score_give_everything_but_failures(
    evaluate, pictures, make_outputs, make_set, tmp_path
):
    outputs = make_outputs("m", pictures, 1)
    arguments = ("--dataset", pictures, "--model", "none", "--methods", f"m={outputs}")
    done = evaluate(*arguments, "--measures", "psnr_y,ssim_y")
    assert done.code == 0, done.err
    assert "m less the others" in done.out
    assert done.out.count("Failures are not counted: these measures make no score; add niqe") == 1
    (entry,) = results(tmp_path)["sets"]
    assert entry["differences"]["bicubic"]["psnr_y"]["n"] == 3
    assert entry["robustness"] is None
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Failures are not counted: these measures make no score" in page
    assert "<h3>Pictures</h3>" in page

    refused = evaluate(*arguments, "--measures", "psnr_y", "--sweep", "blur")
    assert refused.code == 6
    assert "--sweep follows the mean score, but psnr_y makes none" in refused.err
    alone = make_set(("only",), gt=False, side=60) / "lr"
    refused = evaluate("--dataset", alone, "--model", "none", "--measures", "psnr_y")
    assert refused.code == 6
    assert "has no references, which psnr_y would compare with" in refused.err


def test_json_on_stdout_is_what_the_file_holds(evaluate, pictures, tmp_path):
    done = evaluate("--dataset", pictures, "--model", "none", "--json")
    assert json.loads(done.out) == results(tmp_path)


def test_parquet_holds_the_same_table(evaluate, pictures, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert evaluate("--dataset", pictures, "--model", "none", "--parquet").code == 0
    table = parquet.read_table(tmp_path / "out" / "images.parquet").to_pylist()
    lines = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert [(r["picture"], r["psnr_y"]) for r in table] == [
        (r["picture"], float(r["psnr_y"])) for r in lines
    ]


def test_what_cannot_be_paired_or_read_is_one_sentence(evaluate, pictures, make_outputs, tmp_path):
    outputs = make_outputs("m", pictures, 1)
    cases = []

    def refused(code, message, *arguments):
        done = evaluate("--dataset", pictures, *arguments)
        cases.append(done)
        assert done.code == code, done.err
        assert message in done.err
        assert done.err.strip().count("\nerror:") <= 1
        assert "Traceback" not in done.err

    none = ("--model", "none")
    refused(2, "'x' is not NAME=DIR", "--methods", "x")
    refused(2, "'x' is named twice", "--methods", "x=a", "--methods", "x=b")
    refused(3, "no such file or folder", *none, "--methods", f"x={tmp_path / 'absent'}")
    refused(6, "has the name of one that runs here", "--methods", f"bicubic={outputs}")
    refused(4, "measure lpips cannot be computed: ", "--measures", "lpips")
    refused(2, "measure 'vmaf' is unknown", "--measures", "vmaf")
    refused(2, "'vmaf' is not one of 'paper', 'lpips'", "--score", "vmaf")
    refused(6, "score paper is made of", "--score", "paper")
    refused(6, "two sets have the same name", "--dataset", pictures)
    refused(6, "there are no sets of pictures there", "--dataset", "DIV2K")
    Image.new("RGB", (50, 50)).save(outputs / "b.png")
    refused(3, "m/b: is 50x50, but 96x96 is judged", *none, "--methods", f"m={outputs}")
    (outputs / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    refused(3, "b.png: ", *none, "--methods", f"m={outputs}")
    (outputs / "b.png").unlink()
    refused(3, "lacks the outputs of 1 of the 3", *none, "--methods", f"m={outputs}")


def test_a_known_set_that_shows_other_pictures_is_refused(evaluate, make_set, tmp_path):
    from nsarm_cli.evaluation.datasets import datasets

    names = tuple(datasets()["RP60"].files)
    folder = make_set(names, gt=False, side=8)
    refused = evaluate("--dataset", "rp60", "--data-root", folder, "--model", "none")
    assert refused.code == 3
    assert "is not the picture 01 of RP60 as published" in refused.err
    (folder / "lr" / "07.png").unlink()
    refused = evaluate("--dataset", "rp60", "--data-root", folder, "--model", "none")
    assert "lacks 1 of the 60 pictures of RP60, the first is 07" in refused.err


def test_a_known_set_that_cannot_be_had_is_told_with_where_it_is(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = tmp_path / "root"
    none = ("--model", "none", "--data-root", root)
    for name, place in (
        ("RealSR", "https://github.com/cswry/OSEDiff/"),
        ("RP60", "https://github.com/Xiangtaokong/NSARM/"),
    ):
        refused = evaluate("--dataset", name, *none)
        assert refused.code == 3
        assert "not asked, since HF_HUB_OFFLINE is set; unset it" in refused.err
        assert f"or get it from {place}" in refused.err
    place = "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip"
    refused = evaluate("--dataset", "DIV2K", *none)
    assert refused.code == 3
    assert place in refused.err
    refused = evaluate("--dataset", "DIV2K", "--model", "none", "--data-root", tmp_path / "absent")
    assert refused.code == 6
    assert "there are no sets of pictures there" in refused.err
    assert place in refused.err


@pytest.fixture
def web(make_set, monkeypatch):
    """A server on loopback with a known set of three pictures, and the catalogue that names it."""
    from nsarm_cli.evaluation import datasets as module
    from nsarm_cli.evaluation.pictures import pixel_digest

    folder, names = make_set(), ("a", "b", "c")
    captions = json.dumps({"key": "a", "caption": "shades"}).encode()
    with serving() as server:
        files = {}
        for name in names:
            published = []
            for part in ("lr", "gt"):
                path = folder / part / f"{name}.png"
                server.put(f"/{part}/{name}.png", path.read_bytes())
                with Image.open(path) as picture:
                    pixels = pixel_digest(picture)
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                published.append(module.Published(sha256, pixels))
            files[name] = tuple(published)
        server.put("/captions.jsonl", captions)
        dataset = module.Dataset(
            name="Shades",
            title="Shades, 3 pictures",
            licence="free",
            home="https://example.org/shades",
            lr_url=server.url + "/lr/{}.png",
            gt_url=server.url + "/gt/{}.png",
            captions=module.Captions(
                server.url + "/captions.jsonl", hashlib.sha256(captions).hexdigest()
            ),
            bytes=sum(len(data) for data in server.files.values()),
            files=files,
        )
        monkeypatch.setattr(module, "datasets", lambda: {"Shades": dataset})
        yield server


def test_a_known_set_is_fetched_once_and_checked(evaluate, web, tmp_path):
    arguments = ("--dataset", "shades", "--model", "none", "--measures", "psnr_y")
    done = evaluate(*arguments, "--protocol", "native")
    assert done.code == 0, done.err
    folder = tmp_path / "home" / "datasets" / "Shades"
    assert "Shades is not in" in done.err
    assert "fetching 7 files" in done.err
    assert "free) from https://example.org/shades" in done.err
    assert "Shades: verified" in done.err
    assert sorted(p.name for p in folder.iterdir()) == ["captions.jsonl", "gt", "lr"]
    assert "Shades: 3 pictures; native: 24x24 to 96x96" in done.out
    asked = len(web.requests)
    assert evaluate(*arguments, "--protocol", "native").code == 0
    assert len(web.requests) == asked


def test_a_set_that_breaks_off_is_gone_on_with_and_is_never_there_in_part(evaluate, web, tmp_path):
    arguments = ("--dataset", "Shades", "--data-root", tmp_path / "root", "--model", "none")
    arguments += ("--measures", "psnr_y", "--protocol", "native")
    lost = web.files.pop("/gt/c.png")
    refused = evaluate(*arguments)
    assert refused.code == 3
    assert "Shades could not be fetched: " in refused.err
    assert "/gt/c.png: c.png: HTTP 404 (it is not there)" in refused.err
    assert "or get it from https://example.org/shades and name its folder" in refused.err
    assert not (tmp_path / "root" / "Shades").exists()
    web.put("/gt/c.png", lost)
    assert evaluate(*arguments).code == 0
    assert (tmp_path / "root" / "Shades" / "gt" / "c.png").read_bytes() == lost


def test_a_folder_of_the_users_is_never_added_to(evaluate, web, tmp_path):
    folder = tmp_path / "root" / "Shades" / "lr"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(web.files["/lr/a.png"])
    refused = evaluate("--dataset", "Shades", "--data-root", tmp_path / "root", "--model", "none")
    assert refused.code == 3
    assert "lacks 2 of the 3 pictures of Shades, the first is b" in refused.err
    assert "have it fetched to another --data-root" in refused.err
    assert web.requests == []


def test_div2k_is_made_and_judged_at_the_size_of_its_crops(evaluate, tmp_path, monkeypatch):
    from dataclasses import replace

    from nsarm_cli.evaluation import crops

    names = ("0801", "0802")
    rule = replace(
        crops.DIV2K, photographs=replace(crops.DIV2K.photographs, names=names), count=2, side=96
    )
    monkeypatch.setattr(crops, "DIV2K", rule)
    folder = tmp_path / "root" / "DIV2K_valid_HR"
    folder.mkdir(parents=True)
    photo = Path(__file__).parents[1] / "goldens" / "photos" / "coffee_256.png"
    for name in names:
        shutil.copy(photo, folder / f"{name}.png")
    for protocol in ("auto", "paper"):
        done = evaluate(
            *("--dataset", "div2k", "--data-root", folder.parent, "--model", "none"),
            *("--measures", "psnr_y,niqe", "--protocol", protocol),
        )
        assert done.code == 0, done.err
        (entry,) = results(tmp_path)["sets"]
        assert entry["name"] == "DIV2K"
        assert "DIV2K: 2 pictures; native: 24x24 to 96x96 (method)" in done.out
        assert entry["methods"]["bicubic"]["summary"]["psnr_y"]["n"] == 2
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "NSARM, native" in page

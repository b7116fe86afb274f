"""`nsarm eval` under captions, timed, and on damaged inputs."""

import json

import pytest
from PIL import Image

from nsarm_cli.cli.eval_model import weights_digest
from nsarm_cli.cli.main import main

CAPTIONS = {"a": "a red dog", "b": "the cat", "c": "a blurry image"}


@pytest.fixture
def evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))

    def run(*arguments):
        options = ("eval", "-o", tmp_path / "out", "--device", "cpu", "--precision", "fp32")
        options += ("--measures", "psnr_y,niqe")
        capsys.readouterr()
        code = main([str(a) for a in (*options, *arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def captions(tmp_path):
    path = tmp_path / "pictures.jsonl"
    lines = [{"image_path": f"/x/{k}.png", "long_caption": v} for k, v in CAPTIONS.items()]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def results(tmp_path):
    return json.loads((tmp_path / "out" / "results.json").read_text())


def pixels(tmp_path, method, name="a"):
    with Image.open(tmp_path / "out/outputs/pictures-native" / method / f"{name}.png") as picture:
        return picture.tobytes()


def test_fixed_prompt_and_captions_stand_side_by_side(
    evaluate, make_set, captions, text_model, tmp_path
):
    """Table 3 of the paper."""
    arguments = ("--dataset", make_set(), "--model", text_model, "--captions", captions)
    code, _, err = evaluate(*arguments, "--prompts", "both")
    assert code == 0, err
    (entry,) = results(tmp_path)["sets"]
    name = text_model.name
    assert list(entry["methods"]) == [name, f"{name}-captions", "bicubic"]
    assert entry["methods"][f"{name}-captions"]["what"].endswith(
        "under the caption of each picture"
    )
    assert set(entry["differences"]) == {f"{name}-captions", "bicubic"}
    assert pixels(tmp_path, name) != pixels(tmp_path, f"{name}-captions")
    both = pixels(tmp_path, f"{name}-captions")

    captions.write_text(captions.read_text().replace("a red dog", "a dog"))
    code, _, err = evaluate(*arguments, "--prompts", "captions")
    assert code == 6
    assert "made with another captions" in err
    code, _, err = evaluate(*arguments, "--prompts", "captions", "--overwrite")
    assert code == 0, err
    assert list(results(tmp_path)["sets"][0]["methods"]) == [f"{name}-captions", "bicubic"]
    assert pixels(tmp_path, f"{name}-captions") != both


def test_a_model_of_the_hub_is_evaluated(evaluate, make_set, text_model, tmp_path, monkeypatch):
    """The Hub's library is tried in the tests of weights; here it has fetched already."""
    fetched = []

    def fetch(model, text=False):
        fetched.append(model)
        return text_model

    monkeypatch.setattr("nsarm_cli.weights.snapshot.fetch_config", fetch)
    monkeypatch.setattr("nsarm_cli.weights.snapshot.fetch_model", fetch)
    code, _, err = evaluate("--dataset", make_set(("a",)), "--model", "me/micro@v1")
    assert code == 0, err
    assert set(fetched) == {"me/micro@v1"}
    assert results(tmp_path)["model"]["weights"] == weights_digest(str(text_model))
    assert list(results(tmp_path)["sets"][0]["methods"]) == ["me/micro@v1", "bicubic"]
    assert pixels(tmp_path, "me/micro@v1")


def test_captions_are_found_below_the_data_root_and_what_is_missing_is_named(
    evaluate, make_set, captions, text_model, tmp_path
):
    arguments = ("--dataset", make_set(), "--model", text_model, "--prompts", "captions")
    code, _, err = evaluate(*arguments)
    assert code == 6
    assert "its pictures have no captions; name the file of them" in err
    (tmp_path / "root" / "captions").mkdir(parents=True)
    placed = tmp_path / "root" / "captions" / "pictures_256.jsonl"
    placed.write_bytes(captions.read_bytes())
    code, _, err = evaluate(*arguments, "--data-root", tmp_path / "root", "--limit", 1)
    assert code == 0, err
    placed.write_text(placed.read_text().splitlines()[0])
    code, _, err = evaluate(*arguments, "--data-root", tmp_path / "root")
    assert code == 6
    assert "2 pictures have no caption, the first is b" in err


def test_a_model_without_text_and_no_model_refuse_captions(evaluate, make_set, captions):
    arguments = ("--dataset", make_set(), "--captions", captions, "--prompts", "captions")
    code, _, err = evaluate(*arguments)
    assert code == 6
    assert "nsarm-nano takes no text; leave --prompts out" in err
    code, _, err = evaluate(*arguments, "--model", "none")
    assert code == 6
    assert "--prompts is about a model, but there is none" in err


def test_speed_names_stages_what_is_inside_memory_and_parameters(
    evaluate, make_set, text_model, tmp_path
):
    code, out, err = evaluate("--dataset", make_set(("a",)), "--model", text_model, "--speed")
    assert code == 0, err
    speed = results(tmp_path)["speed"]
    assert [s["stage"] for s in speed["stages"]][2] == "model"
    assert len(speed["stages"]) == 5
    medians = [s["seconds"]["least"] for s in speed["stages"]]
    assert 0 < sum(medians) <= speed["seconds"]["most"]
    inner = [s["stage"] for s in speed["window"]["stages"]]
    assert inner[:3] == ["encode", "transformation", "prefill"]
    assert inner[-1] == "decode"
    assert speed["parameters"] > 1000
    assert (speed["input"], speed["output"], speed["judged"]) == ([24, 24], [96, 96], [96, 96])
    assert "The text encoder is outside" in speed["inside"]
    assert "NSARM, published, 1024 pixels on A800" in out
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert '<section id="speed">' in page
    assert "Inside the model: one window of 16x16 pixels" in page


def test_a_sweep_damages_inputs_and_takes_folders_that_have_outputs_for_them(
    evaluate, make_set, tmp_path
):
    pictures = make_set(("a", "b"), side=60)
    other = tmp_path / "other"
    for name in ("pictures", "pictures-blur-1"):
        (other / name).mkdir(parents=True)
        for path in (pictures / "gt").iterdir():
            (other / name / path.name).write_bytes(path.read_bytes())
    code, out, err = evaluate(
        *("--dataset", pictures, "--model", "none", "--sweep", "blur"),
        *("--methods", f"other={other}"),
    )
    assert code == 0, err
    (sweep,) = results(tmp_path)["sweeps"]
    assert sweep["strengths"] == [0, 0.5, 1, 1.5, 2]
    psnr = sweep["measure_means"]["bicubic"]["psnr_y"]
    assert psnr == sorted(psnr, reverse=True)
    assert sweep["measure_means"]["other"]["psnr_y"] == [80, None, 80, None, None]
    assert (tmp_path / "out/sweeps/pictures-blur-2/b.png").is_file()
    assert "pictures under growing blur" in out
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("pictures: blur") >= 2


def test_an_unknown_sweep_and_speed_without_a_model_are_refused(evaluate, make_set):
    code, _, err = evaluate("--dataset", make_set(), "--sweep", "fog")
    assert code == 2
    assert "sweep 'fog' is unknown" in err
    code, _, err = evaluate("--dataset", make_set(), "--model", "none", "--speed")
    assert code == 6
    assert "--speed is about a model" in err

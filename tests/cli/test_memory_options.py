"""Options about memory through the command line: what is printed, and what is refused."""

import json
from html import unescape

import pytest
import torch
from PIL import Image

from nsarm_cli.cli import memory_options
from nsarm_cli.cli.main import main
from nsarm_cli.memory.settings import MemorySettings, Offload, Quantize
from nsarm_cli.models.nsarm.config import NSARM_8B
from nsarm_cli.pipeline import Upscaler


def test_the_choices_are_those_of_the_planner():
    assert [c.value for c in memory_options.OffloadChoice] == ["auto", *map(str, Offload)]
    assert [c.value for c in memory_options.QuantizeChoice] == ["auto", *map(str, Quantize)]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("8GB", "offload all"),
        ("16GB", "offload weights ("),
        ("24GB", "offload idle"),
        ("80GB", "batch 4, offload none"),
    ],
)
def test_a_dry_run_plans_for_a_card_without_weights(capsys, card, words):
    assert main(["upscale", "--dry-run", "--model", "nsarm-8b", "--memory", card]) == 0
    out = capsys.readouterr().out
    first = out.splitlines()[0]
    assert first.startswith(f"nsarm-8b on a card of {card}: needs ")
    assert words in first
    assert "bf16" in first
    for moment in ("encode", "attention", "decode", "(fullest)"):
        assert moment in out
    assert "one window: 256 x 256 pixels to 1024 x 1024" in out


def test_guidance_and_a_prompt_are_part_of_the_plan(capsys):
    arguments = ["upscale", "--dry-run", "--model", "nsarm-8b", "--memory", "40GB"]
    main(arguments)
    plain = capsys.readouterr().out
    main([*arguments, "--cfg", "3", "--prompt", "a dog"])
    guided = capsys.readouterr().out
    assert "batch 2" in plain
    assert "batch 1" in guided
    assert "before it: the text encoder, 2.75 GiB on the device" in guided
    assert "text encoder" not in plain


def test_varsr_is_planned_with_the_guidance_that_it_was_tuned_for(capsys):
    arguments = ["upscale", "--dry-run", "--model", "varsr", "--memory", "8GB"]
    assert main(arguments) == 0
    tuned = capsys.readouterr().out
    assert tuned.startswith("varsr on a card of 8GB: needs ")
    assert "one window: 128 x 128 pixels to 512 x 512" in tuned
    assert "refine" in tuned
    assert main([*arguments, "--guidance", "6"]) == 0
    assert capsys.readouterr().out == tuned
    assert main([*arguments, "--guidance", "0"]) == 0
    assert capsys.readouterr().out != tuned


def test_a_dry_run_shows_pictures_and_memory_and_writes_nothing(capsys, tmp_path, photo):
    before = set(tmp_path.iterdir())
    assert main(["upscale", "--dry-run", "--device", "cpu"]) == 0
    plan = capsys.readouterr().out
    assert plan.startswith("nsarm-nano on cpu: needs ")
    assert main(["upscale", str(photo), "--dry-run", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{photo} 20x12 -> {photo.with_name('photo_x4.png')} 80x48"
    assert lines[1].startswith("nsarm-nano on cpu: needs ")
    assert len(lines) == len(plan.splitlines()) + 1
    assert set(tmp_path.iterdir()) == before


def test_a_prompt_for_a_model_without_text_is_refused_in_a_dry_run_too(capsys):
    assert main(["upscale", "--dry-run", "--device", "cpu", "--prompt", "a dog"]) == 2
    assert "takes no text" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--memory", "16GB"], 2, "it is for --dry-run alone"),
        (["--dry-run", "--memory", "much"], 2, "memory 'much' is no size"),
        (["--dry-run", "--memory", "-5GB"], 2, "memory '-5GB' is no size"),
        (["--offload", "weights", "--device", "cpu"], 5, "offload weights does nothing on cpu"),
        (["--quantize", "int4", "--device", "cpu"], 5, "quantising to int4 does not work here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_would_do_nothing_are_refused(run_cli, photo, options, code, message):
    result = run_cli("upscale", photo, *options)
    assert result.code == code
    assert message in " ".join(result.err.split())


def test_no_picture_is_a_usage_error(capsys):
    assert main(["upscale"]) == 2
    assert "name a picture or a folder" in " ".join(capsys.readouterr().err.split())


def test_nano_runs_quantised(photo, capsys):
    pytest.importorskip("torchao", reason="needs the extra nsarm[quantize]")
    arguments = ["upscale", str(photo), "--device", "cpu", "--precision", "fp32", "--overwrite"]
    target = photo.with_name("photo_x4.png")
    assert main(arguments) == 0
    plain = target.read_bytes()
    assert main([*arguments, "--quantize", "int8"]) == 0
    assert "quantize int8" in capsys.readouterr().err
    assert target.read_bytes() != plain
    with Image.open(target) as image:
        assert '"quantize": "int8"' in unescape(str(image.info["xmp"]))


def options(card=None, **given):
    auto = memory_options.OffloadChoice.AUTO, memory_options.QuantizeChoice.AUTO
    return memory_options.MemoryOptions(*auto, given.get("batch"), given.get("guided"), card)


@pytest.fixture
def installed(tmp_path):
    """The best model, as far as planning looks at it."""
    folder = tmp_path / "nsarm-8b"
    folder.mkdir()
    document = {"family": "nsarm", "config": NSARM_8B.to_dict()}
    (folder / "config.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    ("card", "able", "words"),
    [
        ("2GB", False, "nsarm-8b needs 3.21 GiB, and 2.00 GiB are free on cuda"),
        ("16GB", True, "its 15.93 GiB fit into the 16.00 GiB free on cuda"),
        ("80GB", True, "fit into the 80.00 GiB free on cuda"),
    ],
)
def test_the_planner_says_whether_the_best_model_fits(installed, card, able, words):
    said, reason = options(card).fits(installed, torch.device("cuda"), torch.bfloat16)
    assert said is able
    assert words in reason


def test_a_processor_is_never_given_hours_of_work_unasked(installed):
    able, reason = options().fits(installed, torch.device("cpu"), torch.bfloat16)
    assert not able
    assert "hours per picture" in reason


def test_the_default_model_of_a_card_that_is_not_here_is_what_fits_it(
    installed, tmp_path, monkeypatch, capsys
):
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    installed.rename(home / "models" / "nsarm-8b")
    monkeypatch.setenv("NSARM_HOME", str(home))
    for card, model in (("2GB", "nsarm-nano"), ("24GB", "nsarm-8b")):
        assert main(["upscale", "--dry-run", "--memory", card]) == 0
        assert capsys.readouterr().out.startswith(f"{model} on a card of {card}: ")


def test_compile_reaches_the_model_before_the_first_picture(run_cli, photo, resolver, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        "nsarm_cli.acceleration.accelerate", lambda model, device: compiled.append(model)
    )
    assert run_cli("upscale", photo, "--device", "cpu").code == 0
    assert compiled == []
    assert run_cli("upscale", photo, "--device", "cpu", "--overwrite", "--compile").code == 0
    assert compiled == [resolver]


def test_what_a_full_device_changed_is_recorded_of_the_same_picture(
    run_cli, resolver, photo, monkeypatch
):
    """The settings were once recorded before the first window could fail."""
    quantised = MemorySettings(torch.float32, quantize=Quantize.INT8)
    resolve = resolver.resolve

    def load_crowded(session, *_, **__):
        class Relief:
            settings = session.plan.settings

            def ease(self, *, may_change):
                self.settings = quantised
                monkeypatch.setattr(resolver, "resolve", resolve)
                return may_change

        session._relief = Relief()
        return Upscaler(resolver, session.device, relief=session._relief)

    def full(*_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(memory_options, "load", load_crowded)
    monkeypatch.setattr(resolver, "resolve", full, raising=False)
    result = run_cli("upscale", photo, "--json", "--quantize", "none")
    assert json.loads(result.out)["settings"]["quantize"] == "int8"
    with Image.open(photo.with_name("photo_x4.png")) as image:
        assert '"quantize": "int8"' in unescape(str(image.info["xmp"]))

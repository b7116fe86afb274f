"""`nsarm bench`: one JSON document or one table on stdout, whose numbers fit together."""

import json

import pytest
import torch

from nsarm_cli.models.nsarm.config import PRESETS as NSARM_PRESETS
from nsarm_cli.models.varsr.config import PRESETS as VARSR_PRESETS

pytestmark = pytest.mark.usefixtures("presets")

HEAD = {"nsarm", "date", "machine", "measured", "quantize", "compiled"}
MEMORY = {"peak_memory", "peak_memory_kind"}
STAGES = HEAD | MEMORY | {
    "model", "precision", "batch", "window", "warmup", "repeat", "parameters", "weight_bytes",
    "roofline", "stages", "total",
}  # fmt: skip
STAGE = {"name", "tokens", "flop", "bytes", "seconds", "floor_seconds", "ratio"}
PICTURE = HEAD | MEMORY | {
    "model", "weights", "precision", "input", "output", "warmup", "repeat", "seconds",
    "bicubic_seconds",
}  # fmt: skip
RUNS = ("--device", "cpu", "--repeat", "2", "--warmup", "1")


@pytest.fixture
def document(run_cli):
    """The JSON of `nsarm bench ARGUMENTS --json`."""

    def run(*arguments: object) -> dict:
        result = run_cli("bench", *RUNS, *arguments, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    return run


@pytest.mark.parametrize("name", ["micro", "micro-text", "micro-varsr"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_numbers_of_the_stages_fit_together(document, name, precision):
    report = document("--model", name, "--precision", precision, "--batch", 3)
    assert set(report) == STAGES
    assert report["measured"] == "stages"
    assert (report["model"], report["batch"], report["window"]) == (name, 3, 16)
    assert report["precision"] == {"fp32": "float32", "bf16": "bfloat16"}[precision]
    stages, total = report["stages"], report["total"]
    assert [stage["name"] for stage in stages][-2:] == ["decode", "colour"]
    assert total["tokens"] == 3 * (NSARM_PRESETS | VARSR_PRESETS)[name].schedule.total
    for key in ("tokens", "flop", "bytes"):
        assert total[key] == sum(stage[key] for stage in stages)
    assert total["floor_seconds"] == pytest.approx(sum(s["floor_seconds"] for s in stages))
    roofline = report["roofline"]
    for stage in [*stages, total]:
        assert set(stage) == STAGE
        seconds = stage["seconds"]
        assert 0 < seconds["least"] <= seconds["median"] <= seconds["most"]
        assert stage["floor_seconds"] > 0
        assert stage["ratio"] == pytest.approx(seconds["median"] / stage["floor_seconds"])
    for stage in stages:
        assert stage["floor_seconds"] == pytest.approx(
            max(
                stage["flop"] / roofline["flop_per_second"],
                stage["bytes"] / roofline["bytes_per_second"],
            )
        )
    assert total["seconds"]["median"] >= sum(stage["seconds"]["least"] for stage in stages)
    assert total["seconds"]["median"] <= sum(stage["seconds"]["most"] for stage in stages)


def test_the_table_has_a_row_for_each_stage_and_only_results_are_on_stdout(run_cli):
    result = run_cli("bench", *RUNS, "--model", "micro")
    assert result.code == 0
    lines = result.out.splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.strip().startswith("stage ")) :]
    names = ["encode", "transformation", "prefill", "scale 4x4", "scale 8x8", "decode", "colour"]
    rows = [line.strip() for line in table if line.strip()]
    begun = [name for row in rows for name in [*names, "total"] if row.startswith(name)]
    assert begun == [*names, "total"]
    assert "micro with random weights" in result.out
    assert "as asked" in result.err
    assert "as asked" not in result.out


def test_a_whole_picture_is_measured_with_the_models_own_weights(document, resolver):
    report = document("--picture", 20, "--batch", 3)
    assert set(report) == PICTURE
    assert report["measured"] == "picture"
    assert report["weights"] == "its own"
    assert (report["input"], report["output"]) == ([20, 20], [80, 80])
    assert sum(resolver.batches) == 3 * 4  # four windows, run once to warm up and twice
    assert max(resolver.batches) == 3
    for key in ("seconds", "bicubic_seconds"):
        assert 0 < report[key]["least"] <= report[key]["median"] <= report[key]["most"]


def test_a_preset_without_weights_of_its_own_enlarges_a_picture_with_random_ones(document):
    report = document("--picture", 20, "--model", "micro")
    assert report["weights"] == "random"
    assert report["output"] == [80, 80]


def test_the_lines_about_a_picture_name_both_ways(run_cli):
    result = run_cli("bench", *RUNS, "--picture", 20)
    assert "20x20 -> 80x80" in result.out
    for way in ("nsarm-nano", "bicubic"):
        assert any(line.strip().startswith(way) for line in result.out.splitlines())


def test_an_unknown_preset_is_one_sentence_and_its_code(run_cli):
    result = run_cli("bench", *RUNS, "--model", "macro")
    assert result.code == 4
    assert result.out == ""
    assert "preset 'macro' is unknown: the known ones are nsarm-8b" in result.err


@pytest.mark.parametrize("option", ["--repeat", "--batch", "--picture"])
def test_nothing_is_measured_zero_times(run_cli, option):
    assert run_cli("bench", option, "0").code == 2


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("full"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_a_device_without_room_is_an_error_that_says_what_to_do(run_cli, monkeypatch, error):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("nsarm_cli.benchmark.stages.measure_roofline", refuse)
    result = run_cli("bench", *RUNS, "--model", "micro")
    assert result.code == 5
    assert "lower --batch" in result.err


def test_compiling_and_quantising_reach_the_model_that_is_measured(document, monkeypatch):
    prepared = []
    monkeypatch.setattr(
        "nsarm_cli.memory.quantize.quantize_blocks",
        lambda blocks, kind, device: prepared.append((len(blocks), str(kind), str(device))),
    )
    monkeypatch.setattr(
        "nsarm_cli.acceleration.accelerate",
        lambda resolver, device: prepared.append((resolver.window, str(device))),
    )
    report = document("--model", "micro", "--quantize", "int8", "--compile")
    assert prepared == [(2, "int8", "cpu"), (16, "cpu")]
    assert (report["quantize"], report["compiled"]) == ("int8", True)

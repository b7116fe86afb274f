"""Random models run as real ones do, and their stages are those of the run."""

from dataclasses import replace

import pytest
import torch

from nsarm_cli.benchmark.families import META, build_subject, builders
from nsarm_cli.benchmark.subject import Stage
from nsarm_cli.errors import WeightsError
from nsarm_cli.models.nsarm.resolver import NsarmResolver

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("presets")


def run(subject, batch: int = 2, mark=lambda: None) -> torch.Tensor:
    lr = torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return subject.run(lr, [torch.Generator().manual_seed(i) for i in range(batch)], mark)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["micro", "micro-text", "micro-varsr"])
def test_a_random_model_makes_a_finite_picture_that_is_not_flat(name, dtype):
    sr = run(build_subject(name, CPU, dtype))
    assert sr.shape == (2, 3, 64, 64)
    assert sr.isfinite().all()
    assert sr.std() > 0.01


@pytest.mark.parametrize("name", ["micro", "micro-text", "micro-varsr"])
def test_the_same_preset_is_the_same_model(name):
    first, second = (build_subject(name, CPU, torch.float32) for _ in range(2))
    assert torch.equal(run(first), run(second))


def test_watching_the_stages_changes_nothing_and_leaves_nothing_behind():
    subject = build_subject("micro", CPU, torch.float32)
    lr = torch.zeros(1, 3, 16, 16)
    marks = []
    watched = subject.run(lr, [torch.Generator().manual_seed(0)], lambda: marks.append(0))
    assert len(marks) == len(subject.stages)
    resolver = subject.resolver
    plain = resolver.resolve(lr, [torch.Generator().manual_seed(0)], resolver.sampling)
    assert torch.equal(watched, plain)
    assert len(marks) == len(subject.stages)


def test_the_stages_are_named_in_the_order_of_the_run():
    names = [stage.name for stage in build_subject("micro", META, torch.float32).stages]
    assert names == ["encode", "transformation", "prefill", "scale 4x4", "scale 8x8", "decode"]


def test_the_runs_of_the_refiner_are_one_stage():
    subject = build_subject("micro-varsr", CPU, torch.float32)
    events: list[str] = []
    for name in ("prefix", "refiner"):
        getattr(subject.model, name).register_forward_pre_hook(
            lambda *_, name=name: events.append(name)
        )
    run(subject, mark=lambda: events.append("|"))
    assert " ".join(events) == "prefix | | | | | refiner refiner refiner | |"
    names = [stage.name for stage in subject.stages]
    assert names[:2] == ["prefix", "scale 1x1"]
    assert names[-3:] == ["scale 4x4", "refiner", "decode"]


def test_each_mark_comes_when_its_network_has_run():
    """The order of the marks among the calls of the model's parts."""
    subject = build_subject("micro", CPU, torch.float32)
    events: list[str] = []
    model, transformer = subject.model, subject.model.transformer
    for name, part in (
        ("encoder", model.autoencoder.encoder),
        ("transformation", model.transformation),
        ("blocks", transformer.blocks[0]),
        ("decoder", model.autoencoder.decoder),
    ):
        part.register_forward_pre_hook(lambda *_, name=name: events.append(name))
    run(subject, mark=lambda: events.append("|"))
    assert " ".join(events) == "encoder | transformation | blocks | blocks | blocks | decoder |"


def test_a_wrong_list_of_stages_is_noticed():
    subject = build_subject("micro", CPU, torch.float32)
    wrong = replace(subject, stages=(*subject.stages, Stage("more")))
    with pytest.raises(RuntimeError, match="has 6 stages, but 7 are named"):
        run(wrong)


def test_the_sizes_are_those_of_the_model():
    full, half = (build_subject("micro", META, dtype) for dtype in (torch.float32, torch.float16))
    assert full.parameters == half.parameters
    assert full.weight_bytes == 4 * full.parameters
    assert half.weight_bytes < full.weight_bytes
    assert isinstance(full.resolver, NsarmResolver)


def test_an_unknown_preset_is_an_error_that_names_the_known_ones():
    with pytest.raises(WeightsError, match=r"'macro' is unknown: .*nsarm-8b, .*micro"):
        build_subject("macro", META, torch.float32)
    assert "macro" not in builders()

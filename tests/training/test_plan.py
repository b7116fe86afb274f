"""The plan of a run: arithmetic that the real objects confirm, and what the command prints."""

import dataclasses

import pytest
import torch

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.nsarm.config import NSARM_8B
from nsarm_cli.training import trial
from nsarm_cli.training.config import DecoderConfig, Stage1Config, Stage2Config
from nsarm_cli.training.distributed import Ranks
from nsarm_cli.training.plan import make_plan
from nsarm_cli.training.rehearsal import meta_stage
from nsarm_cli.training.runner import build_stage, prepare_stage
from nsarm_cli.training.step import Stepper

SETTINGS = Stage2Config(crop=64, batch=8, precision="fp32")


def plan_of(config, model, world=1, **options):
    return make_plan(config, model, prepare_stage, world, **options)


def test_what_is_kept_is_what_training_really_keeps(micro, micro_config, batch, tmp_path):
    config = dataclasses.replace(SETTINGS, batch=2, ema=0.9)
    state = plan_of(config, micro_config, policies=("none",)).state

    stepper = Stepper(build_stage(config, micro, torch.device("cpu")), config, tmp_path, Ranks())
    stepper.advance(batch)

    def size(tensors):
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    learned = list(stepper.trained.values())
    assert state.weights == state.gradients == state.average == size(learned)
    moments = stepper._optimizer.state.values()
    assert state.optimiser == size(m[name] for m in moments for name in ("exp_avg", "exp_avg_sq"))
    assert state.weights + state.frozen == size(micro.parameters()) + size(micro.buffers())


def test_the_size_of_a_checkpoint_is_told(micro, micro_config, tmp_path):
    config = dataclasses.replace(SETTINGS, batch=2, ema=0.9)
    told = plan_of(config, micro_config, policies=("none",)).checkpoint
    stepper = Stepper(build_stage(config, micro, torch.device("cpu")), config, tmp_path, Ranks())
    stepper.save()
    stepper.checkpoints.finish()
    (file,) = (tmp_path / "checkpoints").glob("*/*.safetensors")
    assert told == pytest.approx(file.stat().st_size, rel=0.1)


def test_processes_share_what_is_trained_and_not_the_rest(micro_config):
    one, four = (plan_of(SETTINGS, micro_config, world, policies=("none",)) for world in (1, 4))
    assert four.state.weights == one.state.weights // 4
    assert four.state.optimiser == pytest.approx(one.state.optimiser / 4, rel=1e-4)
    assert four.state.frozen == one.state.frozen
    assert (one.samples, four.samples) == (8, 2)
    assert four.flops == pytest.approx(one.flops)
    assert one.received == one.gathered == 0
    # Whole parameters come twice and gradients go once, all but a process's own quarter.
    assert four.received == pytest.approx(3 * 4 * one.learned * 3 / 4, rel=0.01)


def test_parts_of_a_batch_need_less_for_activations_and_more_exchange(micro_config):
    whole, parts = (
        plan_of(dataclasses.replace(SETTINGS, accumulate=n), micro_config, 2, policies=("none",))
        for n in (1, 4)
    )
    assert (parts.passes, parts.samples) == (4, 1)
    assert parts.policies["none"].activations < whole.policies["none"].activations
    assert parts.received == 4 * whole.received
    assert parts.flops == pytest.approx(whole.flops, rel=0.01)


def test_offloading_moves_what_waits_for_the_backward_pass(micro_config):
    here, there = (
        plan_of(dataclasses.replace(SETTINGS, offload=value), micro_config)
        for value in (False, True)
    )
    for policy, passing in there.policies.items():
        assert passing.activations < here.policies[policy].activations


def test_a_validation_holds_the_keys_and_values_of_one_part(micro, micro_config):
    def beside_the_state(**changes):
        plan = plan_of(dataclasses.replace(SETTINGS, **changes), micro_config, policies=("none",))
        return plan.validation - plan.state.frozen - plan.state.split

    cache = micro.transformer.allocate_cache(8, micro_config.schedule)
    held = cache.keys.nbytes + cache.values.nbytes
    whole, parts = beside_the_state(), beside_the_state(accumulate=4)
    assert whole > held
    assert whole - parts >= held * 3 / 4
    assert beside_the_state(offload=True) < whole
    first = plan_of(
        Stage1Config(crop=64, batch=8, precision="fp32"), micro_config, policies=("none",)
    )
    assert first.validation - first.state.frozen - first.state.split < whole


def test_low_ranks_learn_little_and_keep_the_rest_in_bf16(micro_config):
    pytest.importorskip("peft")
    config = dataclasses.replace(SETTINGS, lora=2, precision="bf16")
    low = plan_of(config, micro_config, policies=("none",))
    full = plan_of(dataclasses.replace(config, lora=0), micro_config, policies=("none",))
    assert low.learned < full.learned / 4
    assert low.state.optimiser == 8 * low.learned
    assert low.state.weights + low.state.frozen < 0.7 * (full.state.weights + full.state.frozen)
    assert low.checkpoint < full.checkpoint / 4


def test_a_batch_that_cannot_be_shared_is_refused(micro_config):
    with pytest.raises(ConfigError, match="3 processes of 1 parts each cannot share"):
        plan_of(SETTINGS, micro_config, 3)


def test_the_8b_has_the_parameters_of_its_name():
    stage = meta_stage(Stage2Config(), NSARM_8B, prepare_stage)
    learned = sum(parameter.numel() for parameter in stage.trained.parameters())
    width, depth = NSARM_8B.transformer.width, NSARM_8B.transformer.depth
    # Attention, cross-attention and feed-forward: 4, 4 and 8 matrices of width by width.
    assert learned == pytest.approx(16 * depth * width**2, rel=0.02)


def test_steps_are_timed_and_leave_nothing(micro, tmp_path, monkeypatch):
    monkeypatch.setattr(trial.tempfile, "tempdir", str(tmp_path))
    for config in (Stage1Config(crop=64, warmup=0), DecoderConfig(crop=64, warmup=0)):
        parts = dataclasses.replace(config, precision="fp32", accumulate=2)
        found = trial.try_steps(parts, micro, prepare_stage, torch.device("cpu"), 2)
        assert found.seconds > 0
        assert found.memory is None
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_tells_all_and_writes_nothing(nsarm_train, write_settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = write_settings(batch=4)
    done = nsarm_train("stage1", "--config", settings, "--dry-run")
    assert done.code == 0
    for words in (
        "micro: ",
        "1 process, each with 1 pass of 4 crops per update",
        "optimiser",
        'recompute = "none" of the settings needs 0.0',
        "fits into",
        "one update of one process took",
        "images/s",
    ):
        assert words in done.out
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_for_other_machines_says_what_would_fit(nsarm_train, write_settings):
    settings = write_settings(batch=64)
    small = ("--world-size", 2, "--memory", "4MB")
    done = nsarm_train("stage1", "--config", settings, "--dry-run", *small)
    assert done.code == 0
    assert "2 processes, each with 1 pass of 32 crops per update" in done.out
    assert "does not fit into 0.00391 GiB" in done.out
    assert "accumulate = " in done.out
    assert "each process receives" in done.out
    assert "a validation needs 0.0" in done.out

    wrong = nsarm_train("stage1", "--config", settings, "--dry-run", "--memory", "much")
    assert wrong.code == 2
    assert "memory 'much' is no size" in wrong.err
    for options in (small[:2], small[2:]):
        refused = nsarm_train("stage1", "--data", "absent", "--config", settings, *options)
        assert refused.code == 2
        assert "it is for --dry-run alone" in refused.err


def test_training_needs_pictures(nsarm_train, write_settings):
    done = nsarm_train("stage1", "--config", write_settings())
    assert done.code == 2
    assert "give the training pictures" in done.err

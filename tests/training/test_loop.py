"""The loop around a stage: order, learning rate, divergence, validation, saving."""

import dataclasses
import itertools
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nsarm_cli.errors import ConfigError
from nsarm_cli.training import loop
from nsarm_cli.training.config import RunConfig
from nsarm_cli.training.data import Batch
from nsarm_cli.training.distributed import Ranks
from nsarm_cli.training.loop import run
from nsarm_cli.training.step import (
    Stepper,
    TrainingDivergedError,
    learning_rate,
    parameter_groups,
)

BATCH = Batch(torch.ones(1, 3, 4, 4), None)


def newest(folder):
    return max((folder / "checkpoints").iterdir())


def tensors_in(checkpoint) -> dict[str, Tensor]:
    return {name: t for path in checkpoint.iterdir() for name, t in load_file(path).items()}


class Toy:
    """Learns to give zero; can be told to go wrong at a step."""

    def __init__(self, fault: str = "", at: int = -1) -> None:
        generator = torch.Generator().manual_seed(0)
        self.module = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("one", "two", "idle")})
        for parameter in self.module.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.trained = nn.ModuleList([self.module["one"], self.module["two"]])
        self.validated: list[str] = []
        self.seen: list[int] = []
        self._fault, self._at = fault, at

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append(step)
        x = batch.hr.mean((1, 2, 3))[:, None]
        hidden = self.module["one"](x)
        if step == self._at and self._fault == "gradient":
            self.module["two"].weight.register_hook(lambda gradient: gradient * math.nan)
        loss = self.module["two"](hidden).square().mean()
        if step == self._at and self._fault == "loss":
            loss = loss + math.inf
        return loss, {"twice": 2 * loss}

    def validate(self, batches, pictures) -> dict[str, float]:
        assert not self.trained.training
        assert not torch.is_grad_enabled()
        self.validated.append(pictures.name)
        return {"count": float(len(list(batches)))}


def settings(**changes) -> RunConfig:
    base = {"steps": 4, "lr": 0.05, "warmup": 0, "precision": "fp32", "validate_every": 1000}
    return RunConfig(**(base | changes))


def train(stage, config, folder, should_stop=lambda: False, validation=None):
    reports = []
    done = run(
        Stepper(stage, config, folder, Ranks()),
        config,
        lambda step: [BATCH] * (config.steps - step),
        validation,
        folder,
        ranks=Ranks(),
        report=reports.append,
        should_stop=should_stop,
    )
    return done, reports


def state(stage) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}


def test_every_step_is_reported_with_its_values(tmp_path):
    done, reports = train(Toy(), settings(), tmp_path)
    assert done == 4
    assert [(r.step, r.steps) for r in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(r.values["twice"] == pytest.approx(2 * r.values["loss"]) for r in reports)
    assert all(r.values["gradient"] > 0 for r in reports)
    assert reports[-1].values["loss"] < reports[0].values["loss"]


def test_a_clipped_gradient_is_reported_as_it_was(tmp_path):
    loose, tight = (
        train(Toy(), settings(steps=1, clip=clip), tmp_path / str(clip))[1][0]
        for clip in (1000.0, 0.01)
    )
    assert loose.values["gradient"] == tight.values["gradient"] > 0.01


def test_clipping_limits_the_norm_of_the_whole_gradient(tmp_path, monkeypatch):
    norms = []

    class Spy(torch.optim.AdamW):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    train(Toy(), settings(clip=0.01), tmp_path)
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_update_and_keeps_the_checkpoint(tmp_path, fault):
    stage = Toy(fault, at=2)
    good = Toy()
    train(good, settings(), tmp_path / "good", should_stop=lambda: len(good.seen) == 2)

    with pytest.raises(TrainingDivergedError, match=r"step 2: the loss is .*; nothing was updated"):
        train(stage, settings(save_minutes=0), tmp_path)

    after_two = state(good)
    assert all(torch.equal(tensor, after_two[name]) for name, tensor in state(stage).items())
    assert newest(tmp_path).name == "step-00000002"
    assert tensors_in(newest(tmp_path)).keys() == tensors_in(newest(tmp_path / "good")).keys()


def test_the_tensor_whose_gradient_is_not_finite_is_named(tmp_path):
    """Clipping by a norm of NaN used to spoil every gradient, and the first was blamed."""
    with pytest.raises(TrainingDivergedError) as error:
        train(Toy("gradient", at=0), settings(), tmp_path)
    assert "the gradient of two.weight is not finite; nothing was updated" in str(error.value)


def test_a_loss_without_a_bad_gradient_is_reported_alone(tmp_path):
    with pytest.raises(
        TrainingDivergedError, match="step 0: the loss is inf through twice; nothing was"
    ):
        train(Toy("loss", at=0), settings(), tmp_path)


def test_divergence_is_an_error_of_the_settings():
    assert issubclass(TrainingDivergedError, ConfigError)


def test_stopping_saves_and_the_next_run_goes_on_with_the_next_step(tmp_path):
    first = Toy()
    assert train(first, settings(), tmp_path, should_stop=lambda: len(first.seen) == 3)[0] == 3
    second = Toy()
    assert train(second, settings(), tmp_path)[0] == 4
    assert (first.seen, second.seen) == ([0, 1, 2], [3])


def test_validation_comes_at_its_steps_and_at_the_end(tmp_path):
    stage = Toy()
    config = settings(steps=5, validate_every=2)
    _, reports = train(stage, config, tmp_path, validation=lambda: [BATCH, BATCH])
    assert stage.validated == [f"validation-{step:06d}.png" for step in (2, 4, 5)]
    assert [r.validation for r in reports] == [None, {"count": 2}, None, {"count": 2}, {"count": 2}]


def test_validation_changes_nothing_of_the_training(tmp_path):
    with_it, without = Toy(), Toy()
    config = settings(validate_every=1)
    train(with_it, config, tmp_path / "with", validation=lambda: [BATCH])
    train(without, config, tmp_path / "without")
    assert all(torch.equal(t, state(without)[name]) for name, t in state(with_it).items())


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Stepper, "save", lambda stepper: saved.append(stepper.step))
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    train(Toy(), settings(steps=6, save_minutes=1.0), tmp_path)
    # Steps begin 40 s apart. One that begins more than 60 s after the last that saved, saves.
    assert saved == [3, 5, 6]


def test_what_was_good_is_saved_before_a_run_stops(tmp_path):
    with pytest.raises(TrainingDivergedError, match="step 2 is saved"):
        train(Toy("loss", at=2), settings(), tmp_path)
    well = Toy()
    assert train(well, settings(), tmp_path)[0] == 4
    assert well.seen == [2, 3]


def test_a_run_that_diverged_leaves_the_checkpoint_before_it_to_go_on_from(tmp_path):
    few = settings(keep=1)
    train(Toy(), few, tmp_path, should_stop=lambda: True)
    with pytest.raises(TrainingDivergedError) as caught:
        train(Toy("loss", at=2), few, tmp_path)
    here = tmp_path / "checkpoints" / "step-00000002"
    assert f"the same would happen again, so remove {here} to go on from before" in str(
        caught.value
    )
    assert 'precision = "fp32"' not in str(caught.value)  # it is that already

    shutil.rmtree(here)
    well = Toy()
    assert train(well, few, tmp_path)[0] == 4
    assert well.seen == [1, 2, 3]


def test_an_average_that_begins_later_begins_with_the_weights_of_that_moment(tmp_path):
    train(Toy(), settings(steps=3), tmp_path)
    stage = Toy()
    start = state(stage)["one.weight"]
    stepper = Stepper(stage, settings(ema=0.9), tmp_path, Ranks())
    now = state(stage)["one.weight"]
    assert stepper.step == 3
    assert not torch.equal(now, start)
    assert torch.equal(stepper.weights(stage.module, averaged=True)["one.weight"], now)


def test_a_validation_goes_through_the_parts_of_a_step(tmp_path):
    class Counts(Toy):
        def validate(self, batches, pictures):
            self.sizes = [len(batch.hr) for batch in batches]
            return {"count": 1.0}

    stage = Counts()
    stepper = Stepper(stage, settings(batch=4, accumulate=2), tmp_path, Ranks())
    stepper.validate([Batch(torch.rand(4, 3, 4, 4), None)] * 2, None)
    assert stage.sizes == [2, 2, 2, 2]


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tmp_path):
    whole, parted = Toy(), Toy()
    batches = [Batch(torch.rand(4, 3, 4, 4), None) for _ in range(3)]
    reports = []
    for stage, parts in ((whole, 1), (parted, 4)):
        config = settings(steps=3, batch=4, accumulate=parts)
        stepper = Stepper(stage, config, tmp_path / str(parts), Ranks())
        reports.append([stepper.advance(batch).values for batch in batches])
    for one, other in zip(*reports, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    for one, other in zip(whole.module.parameters(), parted.module.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5)


def test_the_average_follows_the_weights_and_validation_sees_it(tmp_path):
    class Shows(Toy):
        def validate(self, batches, pictures):
            return {"weight": self.module["one"].weight.item()}

    stage = Shows()
    weights = [stage.module["one"].weight.item()]
    stepper = Stepper(stage, settings(ema=0.9, steps=20), tmp_path, Ranks())
    for _ in range(3):
        stepper.advance(BATCH)
        weights.append(stage.module["one"].weight.item())

    wanted = weights[0]
    for step, weight in enumerate(weights[1:], start=1):
        past = min(0.9, (1 + step) / (10 + step))
        wanted = past * wanted + (1 - past) * weight
    assert stepper.validate([BATCH], None)["weight"] == pytest.approx(wanted, rel=1e-5)
    assert stage.module["one"].weight.item() == weights[-1]
    assert float(stepper.weights(stage.module, averaged=True)["one.weight"]) == pytest.approx(
        wanted, rel=1e-5
    )
    assert float(stepper.weights(stage.module)["one.weight"]) == weights[-1]


def test_the_average_survives_a_stop(tmp_path):
    broken, whole = Toy(), Toy()
    config = settings(ema=0.5)
    train(broken, config, tmp_path / "a", should_stop=lambda: len(broken.seen) == 2)
    resumed = Stepper(Toy(), config, tmp_path / "a", Ranks())
    unbroken = Stepper(whole, config, tmp_path / "b", Ranks())
    for _ in range(2):
        unbroken.advance(BATCH)
    assert resumed.step == unbroken.step == 2
    for name, value in resumed.average.values.items():
        assert torch.equal(value, unbroken.average.values[name])


def test_the_optimiser_never_touches_other_parts(tmp_path):
    stage = Toy()
    before = state(stage)
    train(stage, settings(weight_decay=0.5), tmp_path)
    same = {name for name, tensor in state(stage).items() if torch.equal(tensor, before[name])}
    assert same == {"idle.weight", "idle.bias"}


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_rate_warms_up_to_its_peak_and_falls_to_its_end(decay):
    config = RunConfig(steps=100, warmup=10, lr=2.0, final_lr=0.1, decay=decay)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == max(rates) == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(config, 55) == pytest.approx(2.0 * 0.55)  # half way, in both shapes
    assert learning_rate(config, 100) == pytest.approx(0.2)
    if decay == "linear":
        steps = [one - two for one, two in itertools.pairwise(rates[10:])]
        assert steps == pytest.approx([0.02] * 89)


def test_a_run_shorter_than_its_warm_up_still_has_rates():
    config = RunConfig(steps=3, warmup=10, lr=1.0)
    assert [learning_rate(config, step) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_the_loop_follows_the_rate(tmp_path):
    config = settings(steps=1, warmup=10, weight_decay=0.0)
    still, moved = Toy(), Toy()
    before = state(still)
    train(still, dataclasses.replace(config, lr=1e-9), tmp_path / "a")
    train(moved, dataclasses.replace(config, lr=1.0), tmp_path / "b")
    # Adam's first update is the rate itself in every number: a tenth of the peak.
    for name in ("one.weight", "two.bias"):
        assert float((state(still)[name] - before[name]).abs().max()) < 1e-6
        assert float((state(moved)[name] - before[name]).abs()) == pytest.approx(0.1, rel=1e-3)


def test_matrices_and_kernels_decay_and_the_rest_does_not(micro):
    decayed, plain = parameter_groups(micro, 0.3)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in micro.named_parameters()}
    of = [{names[id(p)] for p in group["params"]} for group in (decayed, plain)]
    assert of[0] | of[1] == set(names.values())
    assert not of[0] & of[1]
    assert "transformer.blocks.0.attention.qkv.weight" in of[0]
    assert "autoencoder.encoder.conv_in.weight" in of[0]
    assert not any(name.endswith("bias") for name in of[0])
    assert {"conditioner.constant", "transformer.start"} <= of[1]
    assert "transformer.scale_embedding.weight" in of[1]

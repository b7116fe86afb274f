"""Training of VARSR: one stage on the common loop, from pictures of two qualities."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tests.published_varsr import MICRO_VARSR, make_varsr
from torch.utils.flop_counter import FlopCounterMode

from nsarm_cli.models.varsr.model import VarsrModel
from nsarm_cli.runtime import window_generator
from nsarm_cli.training.data import Batch
from nsarm_cli.training.distributed import Ranks
from nsarm_cli.training.drop_path import DropPath
from nsarm_cli.training.model_folder import write_model
from nsarm_cli.training.rehearsal import meta_stage, rehearse
from nsarm_cli.training.runner import prepare_stage
from nsarm_cli.training.step import Stepper, learning_rate, parameter_groups
from nsarm_cli.training.varsr import VarsrStage
from nsarm_cli.training.varsr_settings import VarsrStageConfig
from nsarm_cli.training.varsr_start import initialise_varsr
from nsarm_cli.weights.families import load_resolver
from nsarm_cli.weights.folder import VARSR, load_model_of

CPU = torch.device("cpu")
SETTINGS = VarsrStageConfig(
    steps=3, batch=2, crop=64, lr=1e-2, warmup=1, precision="fp32", drop_path=0.5
)


@pytest.fixture
def model() -> VarsrModel:
    return make_varsr().requires_grad_(requires_grad=True)


@pytest.fixture
def varsr_folder(model, tmp_path):
    write_model(model, tmp_path / "micro-varsr")
    return tmp_path / "micro-varsr"


@pytest.fixture
def varsr_settings(varsr_folder, write_settings):
    def write(**changes):
        return write_settings(**({"model": str(varsr_folder), "steps": 2} | changes))

    return write


@pytest.fixture
def bad_photos(tmp_path):
    """Two flat grey pictures, which no good one is."""
    folder = tmp_path / "bad"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.full((80, 70, 3), 100 + i, np.uint8)).save(folder / f"{i}.png")
    return folder


def test_everything_but_the_tokenizer_learns(model, batch, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stepper = Stepper(VarsrStage(model, SETTINGS), SETTINGS, tmp_path, Ranks())
    for _ in range(3):
        values = stepper.advance(batch).values
    assert values["loss"] == pytest.approx(values["cross_entropy"] + 2 * values["refiner"])
    after = model.state_dict()
    kept = {name for name in before if torch.equal(after[name], before[name])}
    assert kept == {name for name in before if name.startswith("tokenizer.")}


def test_a_loss_follows_from_step_and_seeds_and_draws_no_global_number(model, batch):
    stage = VarsrStage(model, SETTINGS)
    state = torch.get_rng_state()
    first, second = (float(stage.loss(batch, 3)[0].detach()) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert float(stage.loss(batch, 4)[0].detach()) != first


def test_a_loss_is_the_mean_over_samples_whoever_shares_the_batch(model, batch):
    stage = VarsrStage(model, SETTINGS)
    halves = [float(stage.loss(part, 1)[0].detach()) for part in batch.split(2)]
    assert float(stage.loss(batch, 1)[0].detach()) == pytest.approx(sum(halves) / 2, rel=1e-5)


def test_quality_is_the_label_that_the_model_sees(model, batch):
    stage = VarsrStage(model, dataclasses.replace(SETTINGS, drop_path=0.0))
    marked = [dataclasses.replace(batch, poor=torch.tensor([p, p])) for p in (False, True)]
    unmarked, good, poor = (float(stage.loss(b, 0)[0].detach()) for b in (batch, *marked))
    assert unmarked == good != poor
    with torch.no_grad():
        model.labels.weight[1] = model.labels.weight[0]
    assert float(stage.loss(marked[1], 0)[0].detach()) == good


def test_bf16_decides_tokens_in_float32_and_gives_nearly_the_same_loss(model, batch):
    stage = VarsrStage(model, SETTINGS)
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(float(stage.loss(batch, 0)[0].detach()))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_validation_repeats_leaves_nothing_out_and_shows_pictures(model, batch, tmp_path):
    stage = VarsrStage(model.eval(), SETTINGS)
    with torch.no_grad():
        figures = [stage.validate([batch], tmp_path / f"{i}.png") for i in range(2)]
        stage.loss(batch, 0)
        figures.append(stage.validate([batch], None))
    assert figures[0] == figures[1] == figures[2]
    assert set(figures[0]) == {
        "loss",
        "cross_entropy",
        "refiner",
        "psnr",
        *(f"right.{k}" for k in range(4)),
    }
    assert all(math.isfinite(value) for value in figures[0].values())
    with Image.open(tmp_path / "0.png") as shown:
        assert shown.size == (128, 192)


def test_the_speed_of_a_run_is_told_from_the_operations_of_its_step(model, batch):
    config = dataclasses.replace(SETTINGS, precision="fp32")
    with FlopCounterMode(display=False) as counter:
        VarsrStage(model, config).loss(batch, 0)[0].backward()
    empty = meta_stage(config, MICRO_VARSR, prepare_stage)
    assert rehearse(empty, config, MICRO_VARSR, 2).flops == counter.get_total_flops() > 0


def test_weights_decay_as_the_authors_say(model):
    stage = VarsrStage(model, SETTINGS)
    decayed, plain = parameter_groups(stage.trained, 0.05, stage.decays)
    names = {parameter: name for name, parameter in stage.trained.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    some = {names[p] for p in decayed["params"]}
    assert {"labels.weight", "transformer.word_embedding.weight", "prefix.conv_in.weight"} <= some
    assert "transformer.blocks.0.modulation.weight" in some
    assert not any(name.startswith("refiner.") or name.endswith("bias") for name in some)
    assert {"transformer.start", "transformer.scale_embedding.weight"} <= {
        names[p] for p in plain["params"]
    }


@pytest.mark.parametrize(
    ("step", "rate"), [(101, 5e-5), (1480, 5e-5), (1600, 4.95626e-5), (3000, 2.93544e-5)]
)
def test_the_learning_rate_stays_and_falls_as_the_authors_schedule(step, rate):
    """Their rates of a run of 5000 updates; theirs ends one update earlier."""
    config = VarsrStageConfig(steps=5000, warmup=100, lr=5e-5, final_lr=0.01, hold=0.3)
    assert learning_rate(config, step) == pytest.approx(rate, rel=2e-3)


def test_dropped_branches_add_nothing_and_the_mean_stays():
    model = make_varsr()
    blocks = model.transformer.blocks
    drop = DropPath(blocks, 0.5)
    x = torch.ones(400, 1, 32)
    plain = [block.feed_forward(x) for block in blocks]
    drop.draw([torch.Generator().manual_seed(i) for i in range(400)], CPU)
    torch.testing.assert_close(blocks[0].feed_forward(x), plain[0])
    dropped = blocks[1].feed_forward(x)
    is_zero = (dropped == 0).all(-1).flatten()
    assert is_zero.float().mean() == pytest.approx(0.5, abs=0.08)
    torch.testing.assert_close(dropped[~is_zero], 2 * plain[1][~is_zero])
    drop.rest()
    torch.testing.assert_close(blocks[1].feed_forward(x), plain[1])


def test_fresh_weights_see_the_picture_and_leave_the_tokenizer(batch):
    torch.manual_seed(0)
    model = VarsrModel(MICRO_VARSR)
    tokenizer = {n: t.clone() for n, t in model.tokenizer.state_dict().items()}
    initialise_varsr(model)
    seen = model.prefix_tokens(model.enlarge(batch.lr))
    assert seen.std(0).mean() > 1e-3
    assert all(torch.equal(t, tokenizer[n]) for n, t in model.tokenizer.state_dict().items())


def test_a_run_stops_goes_on_exports_and_its_model_upscales(
    nsarm_train, varsr_settings, photos, bad_photos, saved_in, tmp_path
):
    data = ("--data", photos, "--negatives", bad_photos, "--val", photos)
    settings = {"negatives": 0.5, "drop_path": 0.2, "ema": 0.5}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = nsarm_train("varsr", *data, "--config", varsr_settings(**settings), "--out", whole)
    assert (done.code, done.out) == (0, f"{whole}\n")
    assert "validation: cross_entropy " in done.err
    for steps in (1, 2):
        part = varsr_settings(**settings, steps=steps, decay="cosine", final_lr=1.0)
        nsarm_train("varsr", *data, "--config", part, "--out", parts)
    same = varsr_settings(**settings, decay="cosine", final_lr=1.0)
    nsarm_train("varsr", *data, "--config", same, "--out", tmp_path / "unbroken")
    unbroken, stopped = saved_in(tmp_path / "unbroken"), saved_in(parts)
    assert unbroken.tensors.keys() == stopped.tensors.keys()
    for name, tensor in unbroken.tensors.items():
        assert torch.equal(tensor, stopped.tensors[name]), name

    exported = tmp_path / "exported"
    done = nsarm_train("export", whole, exported, "--temperature", "0.5", "--ema")
    assert done.code == 0, done.err
    config = json.loads((exported / "config.json").read_text())
    assert (config["family"], config["config"]["sampling"]["temperature"]) == ("varsr", 0.5)
    assert "micro" in (exported / "README.md").read_text()
    resolver = load_resolver(str(exported), CPU, torch.float32)
    lr = torch.rand(1, 3, 16, 16) * 2 - 1
    sr = resolver.resolve(lr, [window_generator(0, 0)], resolver.sampling)
    assert sr.shape == (1, 3, 64, 64)
    assert sr.isfinite().all()


def test_a_share_of_each_batch_is_of_poor_quality_and_framed_as_it_is(photos, bad_photos):
    from nsarm_cli.training.feed import training_batches

    config = dataclasses.replace(
        SETTINGS, steps=40, framing="whole", margin=1.25, negatives=0.25, workers=0
    )
    make = training_batches(config, MICRO_VARSR, [str(photos)], CPU, poor=[str(bad_photos)])
    batches = list(make(0))
    poor = torch.cat([batch.poor for batch in batches])
    flat = torch.cat([batch.hr.flatten(1).std(1) for batch in batches]) < 1e-3
    assert torch.equal(poor, flat)
    assert 8 <= int(poor.sum()) <= 32
    again = next(make(7))
    assert torch.equal(again.hr, batches[7].hr)
    assert torch.equal(again.poor, batches[7].poor)
    assert torch.equal(torch.cat([part.poor for part in again.split(2)]), again.poor)


def test_crops_with_a_margin_are_the_middle_of_the_picture():
    from nsarm_cli.training.crops import cut

    y, x = np.mgrid[:160, :200]
    pixels = np.stack([x, y, x], axis=-1).astype(np.uint8)
    rng = np.random.default_rng(0)
    made = cut(pixels, (64, 64), rng, framing="whole", margin=1.25, turns="none")
    # The shorter side of 160 becomes 80, so the crop is the middle 128 of 200 x 160, at half size.
    assert made.shape == (64, 64, 3)
    assert made[0, 0].astype(int) == pytest.approx([36.5, 16.5, 36.5], abs=1.5)
    assert made[-1, -1].astype(int) == pytest.approx([162.5, 142.5, 162.5], abs=1.5)


@pytest.mark.parametrize(
    ("changes", "options", "code", "words"),
    [
        ({"crop": 32}, (), 6, "a window of micro-varsr is 64 pixels; set crop = 64"),
        ({"negatives": 0.2}, (), 6, "give them with --negatives, or set negatives = 0"),
        ({}, ("--negatives", "photos"), 6, "--negatives is given, but negatives is 0"),
        ({"negatives": 1.5}, (), 6, "negatives is 1.5; give a share in [0, 1)"),
        ({"model": "varsr"}, (), 6, "set tokenizer_from to a model folder that has it"),
        ({"attention": "flex"}, (), 6, 'set attention = "sdpa", or train with --device cuda'),
        ({"model": "absent"}, (), 6, "absent: neither a model folder nor one of the presets varsr"),
        ({"transformer_from": "x"}, (), 6, "unknown setting transformer_from"),
    ],
)
def test_wrong_settings_end_with_a_sentence(
    nsarm_train, varsr_settings, photos, tmp_path, changes, options, code, words
):
    given = [photos if option == "photos" else option for option in options]
    settings = varsr_settings(**changes)
    out = tmp_path / "out"
    done = nsarm_train("varsr", "--data", photos, "--config", settings, "--out", out, *given)
    assert done.code == code
    assert words in done.err
    assert not out.exists()


def test_the_tokenizer_may_come_from_another_folder(
    nsarm_train, varsr_settings, photos, tmp_path, model
):
    other = make_varsr()
    other.tokenizer.decoder.conv_out.bias.data.fill_(0.25)
    write_model(other, tmp_path / "other")
    settings, out = (
        varsr_settings(tokenizer_from=str(tmp_path / "other"), steps=1),
        tmp_path / "out",
    )
    done = nsarm_train("varsr", "--data", photos, "--config", settings, "--out", out)
    assert done.code == 0, done.err
    made = load_model_of(out, VARSR)
    assert torch.equal(made.tokenizer.decoder.conv_out.bias, torch.full((3,), 0.25))


def test_crops_without_low_resolution_are_refused(model, batch):
    with pytest.raises(Exception, match="needs degraded pictures"):
        VarsrStage(model, SETTINGS).loss(Batch(batch.hr, None), 0)


def test_a_dry_run_plans_and_times_a_run(nsarm_train, varsr_settings):
    done = nsarm_train("varsr", "--config", varsr_settings(), "--dry-run")
    assert done.code == 0, done.err
    assert "one update of one process took" in done.out

"""Each stage learns, changes its own part alone, and shows what it does."""

import dataclasses
import math

import pytest
import torch
from PIL import Image

from nsarm_cli.errors import ConfigError
from nsarm_cli.models.core.pyramid import area
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm import bsq
from nsarm_cli.models.nsarm.model import NsarmModel
from nsarm_cli.models.nsarm.resolver import NsarmResolver
from nsarm_cli.models.nsarm.transformation import BranchConfig, TransformationConfig
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.training.config import (
    DecoderConfig,
    PriorConfig,
    Stage1Config,
    Stage2Config,
    TokenizerConfig,
)
from nsarm_cli.training.data import Batch
from nsarm_cli.training.decoder import DecoderStage
from nsarm_cli.training.distributed import Ranks
from nsarm_cli.training.initialise import initialise
from nsarm_cli.training.labels import modified_labels, preliminary_targets
from nsarm_cli.training.loop import run
from nsarm_cli.training.losses import bit_cross_entropy, preliminary_loss
from nsarm_cli.training.runner import build_stage
from nsarm_cli.training.stage1 import Stage1
from nsarm_cli.training.stage2 import Stage2
from nsarm_cli.training.step import Stepper
from nsarm_cli.training.templates import crop_size
from nsarm_cli.training.tokenizer import TokenizerStage

CPU = torch.device("cpu")
COMMON = {"steps": 2, "batch": 2, "crop": 64, "lr": 1e-2, "warmup": 5, "precision": "fp32"}
CONFIGS = {
    "tokenizer": TokenizerConfig(**COMMON),
    "prior": PriorConfig(**COMMON),
    "stage1": Stage1Config(**COMMON),
    "stage2": Stage2Config(**COMMON),
    "decoder": DecoderConfig(**COMMON, temperature=0.0),
    "refined": DecoderConfig(**COMMON, temperature=0.0, adversarial=0.2, transformation=True),
}
PARTS = {
    "tokenizer": ("autoencoder.",),
    "prior": ("transformer.", "conditioner."),
    "stage1": ("transformation.",),
    "stage2": ("transformer.", "conditioner."),
    "decoder": ("autoencoder.decoder.",),
    "refined": ("autoencoder.decoder.", "transformation."),
}
each_stage = pytest.mark.parametrize("name", list(CONFIGS))


def fill_head(model) -> None:
    """Fresh weights predict the same for every token: give the head something to say."""
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(model.transformer.head.out.weight, generator=generator)


def fit(stage, config, batch, folder) -> list[float]:
    """Losses of training on one batch."""
    losses: list[float] = []
    run(
        Stepper(stage, config, folder, Ranks()),
        config,
        lambda step: [batch] * (config.steps - step),
        None,
        folder,
        ranks=Ranks(),
        report=lambda progress: losses.append(progress.values["loss"]),
    )
    return losses


@pytest.mark.parametrize(
    ("name", "steps", "share"),
    [
        ("tokenizer", 30, 0.4),
        ("prior", 60, 0.75),
        ("stage1", 30, 0.4),
        ("stage2", 60, 0.75),
        ("decoder", 60, 0.65),
        ("refined", 60, 0.75),
    ],
)
def test_a_stage_learns_one_batch_and_changes_nothing_but_its_part(
    name, steps, share, micro, batch, tmp_path
):
    before = {key: tensor.clone() for key, tensor in micro.state_dict().items()}

    config = dataclasses.replace(CONFIGS[name], steps=steps)
    losses = fit(build_stage(config, micro, CPU), config, batch, tmp_path)

    assert losses[-1] < share * losses[0]
    changed = {k for k, tensor in micro.state_dict().items() if not torch.equal(tensor, before[k])}
    assert changed == {key for key in before if key.startswith(PARTS[name])}


@each_stage
def test_bf16_keeps_fp32_weights_and_gives_nearly_the_same_loss(name, micro, batch, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        config = dataclasses.replace(CONFIGS[name], precision=precision, steps=1)
        stage = build_stage(config, micro, CPU)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses[precision] = float(stage.loss(batch, 0)[0].detach())
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)

    fit(stage, config, batch, tmp_path)
    assert {parameter.dtype for parameter in micro.parameters()} == {torch.float32}


@each_stage
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_validation_gives_finite_figures_and_a_picture(name, precision, micro, batch, tmp_path):
    stage = build_stage(CONFIGS[name], micro.eval(), CPU)
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        figures = stage.validate([batch, batch], tmp_path / "shown.png")
    assert figures
    assert all(math.isfinite(value) for value in figures.values())
    with Image.open(tmp_path / "shown.png") as shown:
        assert shown.width == 4 * 64  # two batches of two
        assert shown.height % 64 == 0


@each_stage
def test_validation_repeats(name, micro, batch, tmp_path):
    stage = build_stage(CONFIGS[name], micro.eval(), CPU)
    with torch.no_grad():
        first, second = (stage.validate([batch], tmp_path / f"{i}.png") for i in range(2))
    assert first == second
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


@each_stage
def test_a_loss_depends_on_the_step_alone_and_draws_no_global_random_number(name, micro, batch):
    stage = build_stage(CONFIGS[name], micro, CPU)
    before = torch.get_rng_state()
    first, second = (float(stage.loss(batch, 3)[0].detach()) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["stage1", "stage2", "decoder", "refined"])
def test_crops_that_are_no_window_and_batches_without_lr_are_refused(name, micro, batch):
    stage = build_stage(CONFIGS[name], micro, CPU)
    with pytest.raises(ConfigError, match=r"a window of micro is 64 pixels; set crop = 64"):
        stage.loss(Batch(batch.hr[..., :32, :32], None), 0)
    with pytest.raises(ConfigError, match="needs degraded pictures; set degradation"):
        stage.loss(Batch(batch.hr, None), 0)


def test_the_tokenizer_takes_crops_smaller_than_a_window(micro, batch):
    stage = build_stage(CONFIGS["tokenizer"], micro, CPU)
    small = Batch(batch.hr[..., :40, :40], None)
    assert torch.isfinite(stage.loss(small, 0)[0])


def test_the_perceptual_term_of_the_tokenizer_begins_at_its_step(micro, batch, alexnet):
    config = dataclasses.replace(CONFIGS["tokenizer"], perceptual=2.0, perceptual_from=5)
    perceptual = PerceptualDistance(alexnet)
    stage = TokenizerStage(micro, config, perceptual)
    plain = TokenizerStage(micro, CONFIGS["tokenizer"], None)
    early, values = stage.loss(batch, 4)
    assert "perceptual" not in values
    assert torch.equal(early, plain.loss(batch, 4)[0])
    late, values = stage.loss(batch, 5)
    torch.testing.assert_close(late, early + 2 * values["perceptual"])
    assert values["perceptual"] > 0


@pytest.mark.parametrize("kind", [TokenizerConfig, DecoderConfig])
def test_settings_with_a_perceptual_term_load_its_file(kind, micro, batch, alexnet_file, tmp_path):
    config = kind(**COMMON, perceptual=1.0, perceptual_weights=str(alexnet_file))
    stage = build_stage(config, micro, CPU)
    assert "perceptual" in stage.loss(batch, 0)[1]
    with torch.no_grad():
        assert "perceptual" in stage.validate([batch], tmp_path / "x.png")


def test_the_dists_term_of_the_decoder_is_weighed_and_needs_its_file(micro, batch, vgg16_file):
    plain = build_stage(CONFIGS["decoder"], micro, CPU).loss(batch, 3)[0]
    config = dataclasses.replace(CONFIGS["decoder"], dists=2.0, dists_crop=32)
    with pytest.raises(ConfigError, match="dists_weights names no file; make one with"):
        build_stage(config, micro, CPU)

    config = dataclasses.replace(config, dists_weights=str(vgg16_file))
    loss, values = build_stage(config, micro, CPU).loss(batch, 3)
    torch.testing.assert_close(loss, plain + 2 * values["dists"])
    assert values["dists"] > 0
    seen = {float(build_stage(config, micro, CPU).loss(batch, step)[1]["dists"]) for step in (4, 5)}
    assert len(seen) == 2  # another square at each update


def test_the_pattern_term_of_the_decoder_is_weighed(micro, batch):
    plain = build_stage(CONFIGS["decoder"], micro, CPU).loss(batch, 3)[0]
    config = dataclasses.replace(CONFIGS["decoder"], pattern=3.0)
    loss, values = build_stage(config, micro, CPU).loss(batch, 3)
    torch.testing.assert_close(loss, plain + 3 * values["pattern"])


def test_a_pattern_term_that_would_be_nothing_is_refused(micro, monkeypatch):
    config = dataclasses.replace(CONFIGS["decoder"], pattern=3.0)
    with monkeypatch.context() as patched:
        patched.setattr("nsarm_cli.training.decoder.LEAST_BLOCKS", 17)
        with pytest.raises(ConfigError, match="has 16 blocks along a window; set pattern = 0"):
            DecoderStage(micro, config, None)

    autoencoder = dataclasses.replace(micro.config.autoencoder, unshuffle=1)
    micro.config = dataclasses.replace(micro.config, autoencoder=autoencoder)
    with pytest.raises(ConfigError, match="the decoder of micro unfolds no blocks"):
        DecoderStage(micro, config, None)


def test_dists_keeps_its_statistics_in_float32_under_autocast(micro, batch, vgg16_file):
    config = dataclasses.replace(CONFIGS["decoder"], dists=1.0, dists_weights=str(vgg16_file))
    stage = build_stage(config, micro, CPU)
    exact = stage.loss(batch, 0)[1]["dists"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = stage.loss(batch, 0)[1]["dists"]
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)


def test_flips_differ_from_step_to_step_and_validation_has_none(micro, batch, tmp_path):
    fill_head(micro)
    straight = Stage2(micro, dataclasses.replace(CONFIGS["stage2"], flip=0.0))
    flipping = Stage2(micro, dataclasses.replace(CONFIGS["stage2"], flip=0.4))
    with torch.no_grad():
        calm, varied = (
            {float(stage.loss(batch, step)[0]) for step in range(5)}
            for stage in (straight, flipping)
        )
        figures = [s.validate([batch], tmp_path / "x.png") for s in (straight, flipping)]
    assert (len(calm), len(varied)) == (1, 5)
    assert figures[0] == figures[1]


def test_reweighting_and_resizing_change_the_loss_of_stage_2(micro_config, batch):
    # With sides that do not halve: otherwise bilinear and area resizing are the same.
    config = dataclasses.replace(
        micro_config,
        sides=(1, 3, 5, 8),
        transformation=dataclasses.replace(micro_config.transformation, sides=(2, 6)),
    )
    model = initialise(NsarmModel(config))
    fill_head(model)
    with torch.no_grad():
        losses = [
            float(Stage2(model, dataclasses.replace(CONFIGS["stage2"], **change)).loss(batch, 0)[0])
            for change in ({}, {"reweight": True}, {"resize": "trilinear"})
        ]
    assert len({round(loss, 3) for loss in losses}) == 3


@pytest.mark.parametrize("name", ["prior", "stage2"])
def test_flips_may_be_limited_to_some_scales(name, micro, batch):
    """Flips of a scale change the labels of later scales; those of the last change nothing."""
    fill_head(micro)

    def figures(scales, flip=0.4):
        config = dataclasses.replace(CONFIGS[name], flip=flip, flip_scales=scales)
        with torch.no_grad():
            return build_stage(config, micro, CPU).loss(batch, 0)[1]

    calm, third, more = figures((), flip=0.0), figures((2,)), figures((2, 3))
    assert more == third
    assert third["bits.2"] == calm["bits.2"]
    assert third["bits.3"] != calm["bits.3"]


@pytest.mark.parametrize("name", ["prior", "stage2"])
def test_flips_in_a_scale_that_is_not_there_are_refused(name, micro):
    config = dataclasses.replace(CONFIGS[name], flip_scales=(3, 7))
    with pytest.raises(ConfigError, match=r"flip_scales is \[3, 7\], but .* scales 0 to 3; give"):
        build_stage(config, micro, CPU)


@pytest.mark.parametrize("name", ["prior", "stage2"])
def test_flips_that_no_scale_would_see_are_refused(name, micro):
    config = dataclasses.replace(CONFIGS[name], flip_scales=(3,))
    with pytest.raises(ConfigError, match=r"flip_scales is \[3\], the last scale .* set flip = 0"):
        build_stage(config, micro, CPU)
    build_stage(dataclasses.replace(config, flip=0.0), micro, CPU)


def test_the_prior_predicts_every_scale_from_the_plain_labels(micro, batch):
    fill_head(micro)
    schedule = micro.config.schedule
    with torch.no_grad():
        target = micro.autoencoder.encode(batch.hr)
        forced = modified_labels(target, [], micro.pyramid, micro.config.patch, area)
        logits = micro.transformer(forced.inputs, schedule, micro.conditioner(2))
        wanted = bit_cross_entropy(logits, torch.cat(forced.labels, dim=1)).mean()
        config = dataclasses.replace(CONFIGS["prior"], flip=0.0)
        loss, figures = build_stage(config, micro, CPU).loss(Batch(batch.hr, None), 0)
    torch.testing.assert_close(loss, wanted)
    assert list(figures) == [f"bits.{k}" for k in range(len(schedule))]


@pytest.mark.parametrize("name", ["tokenizer", "prior"])
@pytest.mark.parametrize("ratio", [1.5, 0.666])
def test_pictures_of_another_shape_are_learned_on_its_template(name, ratio, micro, batch):
    height, width = crop_size(micro.config, ratio, 64)
    hr = torch.nn.functional.interpolate(batch.hr, (height, width))
    stage = build_stage(CONFIGS[name], micro, CPU)
    loss, _ = stage.loss(Batch(hr, None, ratio), 0)
    loss.backward()
    assert torch.isfinite(loss)
    if name == "prior":
        with pytest.raises(ConfigError, match=r"a picture of ratio 1 of micro is 64 x 64 pixels"):
            stage.loss(Batch(hr, None), 0)


def test_the_loss_of_untrained_bits_is_that_of_a_coin(micro, batch):
    loss = Stage2(micro, CONFIGS["stage2"]).loss(batch, 0)[0]
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=0.01)


def test_what_is_not_trained_runs_without_dropout(micro_config, batch, tmp_path):
    """Stage 2 used to see the bits of a transformation network with dropout."""
    branches = tuple(BranchConfig(side, 16, 1, 2) for side in (2, 4))
    config = dataclasses.replace(
        micro_config, transformation=TransformationConfig(8, 16, (8, 8), branches)
    )
    model = initialise(NsarmModel(config))
    stage = Stage2(model, CONFIGS["stage2"])
    modes = []
    model.transformation.register_forward_pre_hook(
        lambda module, _: modes.append([m.training for m in module.modules()])
    )
    model.transformer.head.register_forward_pre_hook(
        lambda module, _: modes.append([not m.training for m in module.modules()])
    )

    fit(stage, CONFIGS["stage2"], batch, tmp_path)

    assert len(modes) == 4
    assert not any(mode for seen in modes for mode in seen)


def test_a_model_with_text_is_trained_under_its_unconditional_caption(
    micro_config, batch, tmp_path
):
    """Validation and the decoder stage used to ask for a prompt and fail."""
    config = dataclasses.replace(
        micro_config,
        text_width=128,
        transformer=dataclasses.replace(micro_config.transformer, cross=True),
    )
    model = initialise(NsarmModel(config))
    for name in ("prior", "stage2", "decoder"):
        stage = build_stage(CONFIGS[name], model, CPU)
        losses = fit(stage, CONFIGS[name], batch, tmp_path / name)
        assert all(math.isfinite(loss) for loss in losses)
        with torch.no_grad():
            stage.validate([batch], tmp_path / "x.png")


def test_a_batch_learned_by_stage_1_has_most_bits_right(micro, batch, tmp_path):
    def share_of_right_bits():
        with torch.no_grad():
            target = micro.autoencoder.encode(batch.hr)
            wanted = preliminary_targets(target, micro.pyramid, micro.config.preliminary)
            got = micro.preliminary_residuals(batch.lr)
        pairs = zip(got, wanted, strict=True)
        return float(torch.cat([((g > 0) == (w > 0)).float().flatten() for g, w in pairs]).mean())

    before = share_of_right_bits()
    fit(Stage1(micro), dataclasses.replace(CONFIGS["stage1"], steps=60), batch, tmp_path)
    assert before < 0.65
    assert share_of_right_bits() > 0.85


def test_a_configuration_of_no_stage_is_a_mistake_of_the_program(micro):
    with pytest.raises(TypeError, match="no stage for"):
        build_stage(object(), micro, CPU)  # type: ignore[arg-type]


def test_the_loss_of_stage_2_compares_each_token_with_its_own_label(micro, batch):
    fill_head(micro)
    schedule, first = micro.config.schedule, micro.config.preliminary
    with torch.no_grad():
        forced = modified_labels(
            micro.autoencoder.encode(batch.hr),
            micro.preliminary_residuals(batch.lr),
            micro.pyramid,
            micro.config.patch,
            area,
        )
        logits = micro.transformer(forced.inputs, schedule, micro.conditioner(2))
        each = bit_cross_entropy(logits, torch.cat(forced.labels, dim=1))
        stage = Stage2(micro, dataclasses.replace(CONFIGS["stage2"], flip=0.0))
        loss, values = stage.loss(batch, 0)

    torch.testing.assert_close(loss, each[:, schedule.offsets[first] :].mean())
    assert list(values) == ["bits.2", "bits.3"]
    right = (logits[..., 1::2] > logits[..., ::2]) == torch.cat(forced.labels, dim=1)
    last = right[:, schedule.offsets[3] :].float().mean()
    torch.testing.assert_close(values["bits.3"], last)


def test_a_convolutional_network_is_taught_the_latents_themselves(micro, batch):
    with torch.no_grad():
        target = micro.autoencoder.encode(batch.hr)
        (predicted,) = micro.transformation.learned(micro.encode_lr(batch.lr))
        assert torch.equal(Stage1(micro).loss(batch, 0)[0], preliminary_loss([predicted], [target]))


def test_the_network_of_the_paper_is_taught_residuals_that_are_not_quantised(micro_config, batch):
    branches = tuple(BranchConfig(side, 16, 1, 2) for side in (2, 4))
    model = NsarmModel(
        dataclasses.replace(
            micro_config, transformation=TransformationConfig(8, 16, (8, 8), branches)
        )
    ).eval()
    with torch.no_grad():
        targets = preliminary_targets(model.autoencoder.encode(batch.hr), model.pyramid, 2)
        wanted = preliminary_loss(model.preliminary_residuals(batch.lr), targets)
        assert torch.equal(Stage1(model).loss(batch, 0)[0], wanted)


def test_known_scales_make_up_for_the_bits_of_coarser_ones(micro, batch):
    """Each residual is what the codes before it leave of one prediction."""
    with torch.no_grad():
        (predicted,) = micro.transformation.learned(micro.encode_lr(batch.lr))
        residuals = micro.preliminary_residuals(batch.lr)
        wanted = preliminary_targets(predicted, micro.pyramid, len(residuals))
    assert all(torch.equal(r, w) for r, w in zip(residuals, wanted, strict=True))


def test_the_tokenizer_sees_the_picture_through_its_bits(micro, batch):
    config = dataclasses.replace(CONFIGS["tokenizer"], commitment=0.0, entropy=0.0)
    with torch.no_grad():
        _, codes = micro.pyramid.decompose(micro.autoencoder.encode(batch.hr), bsq.quantise)
        picture = micro.autoencoder.decoder(micro.pyramid.compose(codes))
        loss, _ = TokenizerStage(micro, config, None).loss(batch, 0)
    torch.testing.assert_close(loss, (picture - batch.hr).abs().mean())


def test_the_decoder_sees_what_the_model_samples(micro, batch):
    generators = [torch.Generator() for _ in range(2)]
    with torch.no_grad():
        resolver = NsarmResolver(micro)
        feature = resolver.feature(batch.lr, generators, Sampling(temperature=0.0))
        wanted = (micro.autoencoder.decoder(feature) - batch.hr).abs().mean()
        loss, _ = build_stage(CONFIGS["decoder"], micro, CPU).loss(batch, 0)
    torch.testing.assert_close(loss, wanted)


def test_the_anchor_of_the_decoder_stage_is_the_loss_of_stage_1(micro, batch):
    values = build_stage(CONFIGS["refined"], micro, CPU).loss(batch, 0)[1]
    torch.testing.assert_close(values["anchor"], Stage1(micro).loss(batch, 0)[0].detach())


def test_a_transformation_network_that_learns_beside_the_decoder_sees_the_same_picture(
    micro, batch
):
    """Straight through: the picture is that of the bits, only the gradient goes around them."""
    alone, beside = (
        build_stage(CONFIGS[name], micro, CPU).loss(batch, 0)[1] for name in ("decoder", "refined")
    )
    torch.testing.assert_close(beside["pixel"], alone["pixel"])


@pytest.mark.parametrize("convolutional", [True, False])
def test_without_quantisation_the_known_scales_add_up_to_the_estimate(
    convolutional, micro_config, batch
):
    branches = tuple(BranchConfig(side, 16, 1, 2) for side in (2, 16))
    paper = TransformationConfig(8, 16, (8, 8), branches)
    config = dataclasses.replace(
        micro_config,
        sides=(1, 8, 8),
        transformation=dataclasses.replace(micro_config.transformation, sides=(2, 16))
        if convolutional
        else paper,
    )
    model = NsarmModel(config).eval()
    with torch.no_grad():
        learned = model.transformation.learned(model.encode_lr(batch.lr))
        estimate = model.transformation.estimate(learned, model.pyramid)
        if convolutional:
            learned, _ = model.pyramid.decompose(learned[0], lambda residual: residual)
        torch.testing.assert_close(estimate, model.pyramid.compose(learned))


def test_the_discriminator_looks_on_before_its_score_pushes(micro, batch):
    """Until then the decoder learns as it would without one."""
    gradients = {}
    for name, change in (
        ("alone", {"adversarial": 0.0}),
        ("watched", {"adversarial_from": 5}),
        ("pushed", {}),
    ):
        stage = build_stage(dataclasses.replace(CONFIGS["refined"], **change), micro, CPU)
        micro.zero_grad()
        stage.loss(batch, 4)[0].backward()
        gradients[name] = micro.autoencoder.decoder.conv_in.weight.grad.clone()
    torch.testing.assert_close(gradients["watched"], gradients["alone"])
    assert not torch.allclose(gradients["pushed"], gradients["alone"])

"""VARSR's training from the authors' model of classes, from its published files on."""

import dataclasses

import pytest
import torch
from tests.published_varsr import MICRO_CLASSES, MICRO_VARSR, make_varsr, publish_varsr

from nsarm_cli.cli.main import main
from nsarm_cli.errors import ConfigError, WeightsError
from nsarm_cli.models.varsr.config import PRESETS
from nsarm_cli.training.model_folder import write_model
from nsarm_cli.training.varsr_settings import VarsrStageConfig
from nsarm_cli.training.varsr_start import starting_varsr
from nsarm_cli.weights.folder import VARSR, load_model_of

FRESH = ("transformer.start", "transformer.scale_embedding.weight")


@pytest.fixture(scope="module")
def classes():
    return make_varsr(MICRO_CLASSES)


@pytest.fixture(scope="module")
def published(classes, tmp_path_factory):
    return publish_varsr(classes, tmp_path_factory.mktemp("c2i") / "files", "VARSR_C2I.pth")


@pytest.fixture
def _known(monkeypatch, tmp_path):
    for config in (MICRO_VARSR, MICRO_CLASSES):
        monkeypatch.setitem(PRESETS, config.name, config)
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))


@pytest.fixture
def convert(published, tmp_path, _known):
    """Run `nsarm weights convert` on the published files."""

    def run(name):
        target = tmp_path / name
        files = [str(path) for path in published]
        return main(["weights", "convert", name, *files, "-o", str(target), "--unverified",
                     "--precision", "fp32"]), target  # fmt: skip

    return run


@pytest.fixture
def base(convert):
    code, folder = convert(MICRO_CLASSES.name)
    assert code == 0
    return folder


def test_the_published_model_of_classes_converts_without_loss(classes, base):
    made = load_model_of(base, VARSR)
    assert made.config == MICRO_CLASSES
    for name, tensor in classes.state_dict().items():
        assert torch.equal(made.state_dict()[name], tensor), name


def test_its_files_are_not_taken_for_those_of_the_model_that_sees(convert, capsys):
    code, folder = convert(MICRO_VARSR.name)
    assert code == 4
    assert "do not belong to this model" in " ".join(capsys.readouterr().err.split())
    assert not folder.exists()


def test_a_run_starts_from_the_model_of_classes(classes, base):
    """As the authors': the first classes become the labels; prefix and start are fresh."""
    model = starting_varsr(VarsrStageConfig(model=MICRO_VARSR.name, base_from=str(base)))
    theirs, ours = classes.state_dict(), model.state_dict()
    assert torch.equal(ours["labels.weight"], theirs["labels.weight"][:2])
    for name, tensor in ours.items():
        if not name.startswith(("prefix.", "labels.")) and name not in FRESH:
            assert torch.equal(tensor, theirs[name]), name
    assert all(parameter.requires_grad for parameter in model.transformer.parameters())


@pytest.mark.usefixtures("_known")
def test_scales_are_taken_over_where_their_number_is_the_same(tmp_path):
    config = dataclasses.replace(
        MICRO_CLASSES,
        sides=MICRO_VARSR.sides,
        transformer=dataclasses.replace(MICRO_VARSR.transformer, prefix=0),
    )
    four = make_varsr(config)
    write_model(four, tmp_path / "four")
    settings = VarsrStageConfig(model=MICRO_VARSR.name, base_from=str(tmp_path / "four"))
    scales = starting_varsr(settings).transformer.scale_embedding.weight
    assert torch.equal(scales, four.transformer.scale_embedding.weight)


def test_a_tokenizer_that_is_named_comes_before_that_of_the_base(base, tmp_path):
    other = make_varsr()
    other.tokenizer.decoder.conv_out.bias.data.fill_(0.25)
    write_model(other, tmp_path / "other")
    settings = VarsrStageConfig(
        model=MICRO_VARSR.name, base_from=str(base), tokenizer_from=str(tmp_path / "other")
    )
    bias = starting_varsr(settings).tokenizer.decoder.conv_out.bias
    assert torch.equal(bias, torch.full((3,), 0.25))


@pytest.mark.usefixtures("_known")
def test_a_base_of_another_shape_or_kind_is_refused(tmp_path):
    wide = dataclasses.replace(
        MICRO_CLASSES, refiner=dataclasses.replace(MICRO_CLASSES.refiner, blocks=3)
    )
    write_model(make_varsr(wide), tmp_path / "wide")
    write_model(make_varsr(), tmp_path / "sees")
    start = {"model": MICRO_VARSR.name}
    with pytest.raises(WeightsError, match=r"wide: .*unknown: refiner\.blocks\.2"):
        starting_varsr(VarsrStageConfig(**start, base_from=str(tmp_path / "wide")))
    with pytest.raises(ConfigError, match="sees, which is no model of classes"):
        starting_varsr(VarsrStageConfig(**start, base_from=str(tmp_path / "sees")))


def test_training_from_it_through_the_entry(nsarm_train, write_settings, base, photos, tmp_path):
    settings = write_settings(model=MICRO_VARSR.name, base_from=str(base), steps=1)
    out = tmp_path / "run"
    done = nsarm_train("varsr", "--data", photos, "--config", settings, "--out", out)
    assert done.code == 0, done.err
    assert load_model_of(out, VARSR).config == MICRO_VARSR


def test_as_the_model_itself_it_is_refused_with_the_remedy(
    nsarm_train, write_settings, base, photos, tmp_path, capsys
):
    settings, out = write_settings(model=str(base), steps=1), tmp_path / "run"
    done = nsarm_train("varsr", "--data", photos, "--config", settings, "--out", out)
    assert done.code == 6
    assert "set base_from to its folder" in " ".join(done.err.split())
    picture = str(next(photos.iterdir()))
    out = str(tmp_path / "x.png")
    assert main(["upscale", picture, "-o", out, "--model", str(base), "--device", "cpu"]) == 4
    assert "enlarges none" in " ".join(capsys.readouterr().err.split())

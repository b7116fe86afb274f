"""Published files become a folder that runs as the model does; or nothing at all."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.published import (
    MICRO_8B,
    autoencoder_tensors,
    make_model,
    publish,
    save_parts,
    transformer_tensors,
)

from nsarm_cli.errors import WeightsError
from nsarm_cli.models.nsarm.model import cast_for_inference
from nsarm_cli.text.encoder import TextEncoder
from nsarm_cli.weights import staging
from nsarm_cli.weights.convert import convert
from nsarm_cli.weights.families import load_resolver
from nsarm_cli.weights.folder import load_model
from nsarm_cli.weights.originals import find_originals
from nsarm_cli.weights.recipes import PROMPT, nsarm_recipe
from nsarm_cli.weights.trust import Trust

CPU = torch.device("cpu")
RECIPE = nsarm_recipe(MICRO_8B)
TRUST = Trust(unverified=True)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def published_once(model, text_encoder_folder, tmp_path_factory):
    return publish(model, text_encoder_folder, tmp_path_factory.mktemp("once") / "files")


@pytest.fixture
def published(published_once, tmp_path):
    """Paths of the transformer, the autoencoder and the text encoder, free to be changed."""
    shutil.copytree(published_once[0].parent, tmp_path / "files")
    return [tmp_path / "files" / path.name for path in published_once]


@pytest.fixture
def target(tmp_path):
    return tmp_path / "converted"


def run(paths, target, **options):
    convert(RECIPE, find_originals(paths), target, **({"trust": TRUST} | options))


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_folder_holds_the_model_in_the_types_of_a_run(model, published, target, dtype):
    run(published, target, dtype=dtype)
    wanted = cast_for_inference(make_model(), dtype).state_dict()
    stored = load_file(target / "model.safetensors")
    assert stored.keys() == wanted.keys()
    for name, tensor in stored.items():
        assert tensor.dtype == wanted[name].dtype
        assert torch.equal(tensor, wanted[name])
    loaded = load_model(target, CPU, dtype)
    assert loaded.config == model.config
    assert json.loads((target / "config.json").read_text())["config"]["name"] == "micro-8b"


def test_a_run_needs_the_folder_alone_and_no_text_encoder(model, published, target):
    run(published, target, dtype=torch.float32)
    shutil.rmtree(published[0].parent)
    shutil.rmtree(target / "text_encoder")
    resolver = load_resolver(str(target), CPU, torch.float32)
    features = load_file(target / "prompt.safetensors")["features"]
    expected = type(resolver)(model, features)
    lr = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def resolve(one):
        return one.resolve(lr, [torch.Generator().manual_seed(0)], resolver.sampling)

    made, wanted = resolve(resolver), resolve(expected)
    assert made.shape == (1, 3, 128, 128)
    assert torch.allclose(made, wanted, atol=1e-5)  # the loaded decoder runs leanly


def nested(paths, model):
    torch.save({"trainer": {"gpt_fsdp": transformer_tensors(model)}, "epoch": 3}, paths[0])
    return paths


def in_parts(paths, _model):
    return [*save_parts(paths[0], 3)[::-1], *paths[1:]]


def other_spelling(paths, model):
    torch.save({"vae": autoencoder_tensors(model, as_module=True), "ema": {}}, paths[1])
    return paths


def flat_autoencoder(paths, model):
    torch.save(autoencoder_tensors(model, as_module=True), paths[1])
    return paths


def in_safetensors(paths, model):
    tensors = {n: t.clone() for n, t in transformer_tensors(model).items()}
    paths[0] = paths[0].with_suffix(".safetensors")
    save_file(tensors, paths[0])
    return paths[::-1]


@pytest.mark.parametrize(
    "change", [nested, in_parts, other_spelling, flat_autoencoder, in_safetensors]
)
def test_every_published_layout_gives_the_same_model(model, published, target, change):
    run(change(published, model), target)
    wanted = cast_for_inference(make_model(), torch.bfloat16).state_dict()
    loaded = load_model(target, CPU, torch.bfloat16).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.items())


def test_shards_are_limited_and_indexed(published, target):
    run(published, target, shard_bytes=100_000)
    names = [path.name for path in sorted(target.glob("model-*.safetensors"))]
    assert len(names) > 3
    assert names[0] == f"model-00001-of-{len(names):05}.safetensors"
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == names
    for name in names:
        tensors = load_file(target / name)
        assert {n for n, file in index["weight_map"].items() if file == name} == set(tensors)
        assert sum(t.nbytes for t in tensors.values()) <= 100_000 or len(tensors) == 1
    load_model(target, CPU, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_text_encoder_is_the_encoder_half(published, target, text_encoder_folder, dtype):
    run(published, target, dtype=dtype)
    original = load_file(text_encoder_folder / "model.safetensors")
    stored = load_file(target / "text_encoder" / "model.safetensors")
    assert stored.keys() == original.keys()
    for name, tensor in stored.items():
        kept = name.endswith((".wo.weight", "final_layer_norm.weight"))
        assert tensor.dtype == (torch.float32 if kept else dtype)
        assert torch.equal(tensor, original[name].to(tensor.dtype))
    theirs = TextEncoder.load(text_encoder_folder, CPU, torch.float32)
    ours = TextEncoder.load(target / "text_encoder", CPU, torch.float32)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-6  # three digits, through three layers
    for mine, right in zip(ours.encode(["a dog"]), theirs.encode(["a dog"]), strict=True):
        torch.testing.assert_close(mine, right, atol=tolerance, rtol=0)
    # The features that a run without a prompt uses are those of the fixed prompt.
    features = load_file(target / "prompt.safetensors")["features"]
    assert features.shape[1] == 256
    assert torch.equal(features, ours.encode([PROMPT])[0])


def test_the_tokenizer_may_lie_beside_the_text_encoder(published, target):
    beside = published[2].parent / "tokenizer"
    beside.mkdir()
    (published[2] / "tokenizer.json").rename(beside / "tokenizer.json")
    (published[2] / "tokenizer_config.json").rename(beside / "tokenizer_config.json")
    run(published, target)
    (beside / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"has no tokenizer\.json, nor has"):
        run(published, target.with_name("another"))


def test_converting_twice_gives_the_same_bytes(published, target, tmp_path):
    run(published, target)
    run(published, tmp_path / "again")
    assert contents(target) == contents(tmp_path / "again")


def test_what_it_was_made_from_is_recorded(published, target):
    run(published, target)
    record = json.loads((target / "conversion.json").read_text())
    assert (record["model"], record["dtype"]) == ("micro-8b", "bfloat16")
    sources = {entry["files"][0]: entry for entry in record["sources"]}
    assert len(sources["NSARM.pth"]["sha256"]) == 64
    assert sources["vae.pth"]["bytes"] == published[1].stat().st_size


def test_only_the_folder_appears(published, target, tmp_path):
    before = set(tmp_path.iterdir())
    run(published, target)
    assert set(tmp_path.iterdir()) == before | {target}
    assert {path.name for path in target.iterdir()} == {
        "config.json",
        "conversion.json",
        "model.safetensors",
        "prompt.safetensors",
        "text_encoder",
    }


def test_an_empty_folder_may_be_the_place_and_a_full_one_may_not(published, target):
    target.mkdir()
    run(published, target)
    before = contents(target)
    with pytest.raises(WeightsError, match="converted: exists already"):
        run(published, target)
    assert contents(target) == before


def test_missing_and_strange_files_are_named(published, target, tmp_path):
    with pytest.raises(WeightsError, match=r"the autoencoder .* and the text encoder .* missing"):
        run(published[:1], target)
    torch.save({"a": torch.zeros(1)}, tmp_path / "cats.pth")
    with pytest.raises(WeightsError, match=r"cats\.pth: is none of the files that micro-8b"):
        run([*published, tmp_path / "cats.pth"], target)
    shutil.copy(published[1], tmp_path / "twice.pth")
    with pytest.raises(WeightsError, match=r"twice\.pth: .* or is given twice"):
        run([*published, tmp_path / "twice.pth"], target)
    assert not target.exists()


def lose(tensors):
    del tensors["head.bias"]


def add(tensors):
    tensors["stranger"] = torch.zeros(1)


def misshape(tensors):
    tensors["head.bias"] = torch.zeros(7)


def make_whole_numbers(tensors):
    tensors["head.bias"] = torch.zeros(48, dtype=torch.int64)


def spoil(tensors):
    tensors["head.bias"] = torch.full((48,), float("nan"))


def put_text(tensors):
    tensors["head.bias"] = "bias"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lose, r"missing: head\.bias"),
        (add, "unknown: stranger"),
        (misshape, r"misshapen: head\.bias is \(7,\) instead of \(48,\)"),
        (make_whole_numbers, r"transformer\.head\.out\.bias has numbers of type torch\.int64"),
        (spoil, r"transformer\.head\.out\.bias has numbers that are not finite"),
        (put_text, r"has something else than a tensor under head\.bias"),
    ],
)
def test_tensors_that_are_not_the_models_are_named(model, published, target, change, fault):
    tensors = transformer_tensors(model)
    change(tensors)
    torch.save(tensors, published[0])
    with pytest.raises(WeightsError, match=rf"NSARM\.pth: .*{fault}"):
        run(published, target)
    assert not target.exists()


def test_the_text_encoder_must_be_the_models(published, target):
    path = published[2] / "config.json"
    values = json.loads(path.read_text())
    for change, fault in (
        ({"d_model": 512}, "of width 512"),
        ({"model_type": "bert"}, "of a bert"),
        ({"num_layers": 4}, r"flan-t5: .*missing: encoder\.block\.3"),
        ({"num_heads": "many"}, "describes no T5|tensors do not belong"),
    ):
        path.write_text(json.dumps(values | change))
        with pytest.raises(WeightsError, match=fault):
            run(published, target)
    path.write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json: is not the configuration of a T5"):
        run(published, target)


def test_too_little_room_is_said_before_anything_is_written(published, target, monkeypatch):
    monkeypatch.setattr("nsarm_cli.weights.convert.free_bytes", lambda _: 10**6)
    with pytest.raises(WeightsError, match=r"converted: needs 0\.\d GB and the disk is 0\.1 GB"):
        run(published, target)
    assert set(target.parent.iterdir()) == {published[0].parent}


class Stop(BaseException):
    """Ends a run as Ctrl-C does."""


def stop_after(monkeypatch, count, error):
    """Let the disk take some files and then raise."""
    calls = []
    write = staging.Staging.write

    def counted(self, name, writer):
        calls.append(name)
        if len(calls) > count:
            (self.folder / f"{name}.unfinished").parent.mkdir(exist_ok=True)
            (self.folder / f"{name}.unfinished").write_bytes(b"half")
            raise error
        write(self, name, writer)

    monkeypatch.setattr(staging.Staging, "write", counted)


@pytest.mark.parametrize("error", [Stop(), OSError(28, "No space left on device")])
def test_after_an_interruption_finished_shards_are_kept(
    published, target, tmp_path, monkeypatch, error
):
    run(published, tmp_path / "whole", shard_bytes=100_000)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, error)
        with pytest.raises((Stop, WeightsError)) as caught:
            run(published, target, shard_bytes=100_000)
    if isinstance(error, OSError):
        assert "cannot be written (No space left on device); make room" in str(caught.value)
    assert not target.exists()
    unfinished = target.with_name(".converted.unfinished")
    kept = {path: path.stat().st_mtime_ns for path in unfinished.glob("model-*.safetensors")}
    assert len(kept) == 2
    run(published, target, shard_bytes=100_000)
    assert contents(target) == contents(tmp_path / "whole")
    for path, time in kept.items():
        assert (target / path.name).stat().st_mtime_ns == time
    assert not unfinished.exists()


def test_an_interrupted_run_of_other_settings_is_started_anew(
    published, target, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, Stop())
        with pytest.raises(Stop):
            run(published, target, shard_bytes=100_000)
    run(published, target, dtype=torch.float32)
    run(published, tmp_path / "whole", dtype=torch.float32)
    assert contents(target) == contents(tmp_path / "whole")


def test_a_folder_of_someone_else_under_the_temporary_name_is_left_alone(published, target):
    other = target.with_name(".converted.unfinished")
    other.mkdir()
    (other / "diary.txt").write_text("mine")
    with pytest.raises(WeightsError, match="is in the way and not nsarm's"):
        run(published, target)
    assert contents(other) == {"diary.txt": b"mine"}


def test_two_processes_do_not_write_one_folder(published, target):
    from filelock import FileLock

    lock = FileLock(target.with_name(".converted.unfinished.lock"))
    with lock, pytest.raises(WeightsError, match="another process is writing it"):
        run(published, target)
    run(published, target)


def test_progress_rises_to_the_end_of_each_stage(published, target):
    told = []
    run(published, target, on_progress=lambda what, share: told.append((what, share)))
    for stage in ("checking", "writing"):
        shares = [share for what, share in told if what == stage]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1, abs=0.05)
    assert told[-1] == ("encoding the prompt", 0.0)

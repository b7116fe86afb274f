"""Checkpoints are opened without running anything that is in them."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.checkpoint import check_files, read_contents
from nsarm_cli.weights.originals import find_originals
from nsarm_cli.weights.stored import StoredTensor
from nsarm_cli.weights.trust import Trust


class Malicious:
    """Writes a file when it is unpickled in the ordinary way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@contextmanager
def opened(*paths, trust=None):
    (original,) = find_originals(paths)
    with check_files(original, trust or Trust(unverified=True), lambda _: None) as checked:
        yield read_contents(checked)


def refuse(*paths, trust=None):
    with opened(*paths, trust=trust):
        pass


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    long = torch.randn(40, 50, generator=generator)
    return {
        "plain": torch.randn(3, 5, generator=generator),
        "half": torch.randn(7, generator=generator).bfloat16(),
        "whole": torch.arange(6),
        "transposed": torch.randn(4, 6, generator=generator).T,
        "slice": long[10:20, 3:9],
        "same": long,
        "parameter": nn.Parameter(torch.randn(2, 2, generator=generator)),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
    }


@pytest.mark.parametrize(
    "nest",
    [
        dict,
        OrderedDict,
        lambda tensors: {"trainer": {"gpt_fsdp": tensors, "step": 3}, "epoch": 1, "args": {"a": 1}},
    ],
)
def test_every_tensor_of_a_pickle_is_found_with_its_numbers(tmp_path, tensors, nest):
    torch.save(nest(tensors), tmp_path / "a.pth")
    with opened(tmp_path / "a.pth") as contents:
        flat = contents
        if "trainer" in contents:
            assert (contents["epoch"], contents["trainer"]["step"]) == (1, 3)
            flat = contents["trainer"]["gpt_fsdp"]
        assert list(flat) == list(tensors)
        for name, tensor in tensors.items():
            assert flat[name].dtype == tensor.dtype
            assert torch.equal(flat[name].read(), tensor.detach())


def test_parts_of_any_size_are_read_in_place(tmp_path, tensors):
    torch.save(tensors, tmp_path / "whole")
    raw = (tmp_path / "whole").read_bytes()
    for size in (1000, 4096, len(raw) // 2 + 1):
        folder = tmp_path / str(size)
        folder.mkdir()
        for place in range(0, len(raw), size):
            name = f"N_part_{place // size}"
            (folder / name).write_bytes(raw[place : place + size])
        before = sorted(folder.iterdir())
        with opened(folder) as contents:
            for name, tensor in tensors.items():
                assert torch.equal(contents[name].read(), tensor.detach())
        assert sorted(folder.iterdir()) == before


def test_shards_read_as_one_checkpoint(tmp_path, tensors):
    kept = {n: t.detach().clone().contiguous() for n, t in tensors.items()}
    save_file({"plain": kept.pop("plain")}, tmp_path / "b.safetensors")
    save_file(kept, tmp_path / "a.safetensors", metadata={"format": "pt"})
    with opened(tmp_path, trust=Trust()) as contents:
        assert contents.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(contents[name].read(), tensor.detach())
    save_file({"plain": torch.zeros(1)}, tmp_path / "c.safetensors")
    with pytest.raises(WeightsError, match=r"c\.safetensors: has plain, which another file"):
        refuse(tmp_path)


def test_a_pickle_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path):
    mark = tmp_path / "mark"
    contents = {"weight": torch.zeros(3), "more": Malicious(mark)}
    torch.save(contents, tmp_path / "a.pth")
    with pytest.raises(
        WeightsError, match=r"is refused, because it .* could run code when opened \(.*system"
    ) as error:
        refuse(tmp_path / "a.pth")
    assert "weights_only" not in str(error.value)
    assert not mark.exists()
    torch.load(tmp_path / "a.pth", weights_only=False)  # the file is armed
    assert mark.exists()


def test_a_bare_pickle_is_refused_unopened(tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Malicious(mark)))
    torch.save({"a": torch.zeros(1)}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "b.pth"):
        with pytest.raises(WeightsError, match=rf"{name}: is a bare pickle and refused"):
            refuse(tmp_path / name)
    assert not mark.exists()


def test_a_pickle_is_not_opened_before_its_digest_is_known(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(WeightsError, match="digest is not known"):
        refuse(tmp_path / "a.pth", trust=Trust())


@pytest.mark.parametrize("version", ["2.9.1", "2.5.1+cu121"])
def test_a_pytorch_with_known_holes_opens_no_pickle(tmp_path, monkeypatch, version):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(WeightsError, match=r"install PyTorch 2\.10 or newer"):
        refuse(tmp_path / "a.pth")


def rewrite(path, change):
    """Change records of a checkpoint, and write them with Python's own zip."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    compression = change(records) or zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def shorten(records):
    records["a/data/0"] = records["a/data/0"][:-4]


def break_pickle(records):
    records["a/data.pkl"] = records["a/data.pkl"][:20]


def swap_bytes(records):
    records["a/byteorder"] = b"big"


def compress(_records):
    return zipfile.ZIP_DEFLATED


def lose(records):
    del records["a/data/1"]


def inflate(records):
    """Let the first tensor claim a million million elements on ten elements' bytes."""
    shape = b"K\x05K\x02\x86"  # (5, 2)
    assert records["a/data.pkl"].count(shape) == 1
    huge = b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"K\x02\x86"
    records["a/data.pkl"] = records["a/data.pkl"].replace(shape, huge)


@pytest.mark.parametrize("change", [shorten, break_pickle, swap_bytes, compress, lose, inflate])
def test_a_damaged_pickle_is_named(tmp_path, change):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.randn(5, 2), "y": torch.randn(3)}, path)
    rewrite(path, change)
    with pytest.raises(WeightsError, match=r"a\.pth: is (damaged|refused)"):
        refuse(path)


def test_a_rewritten_but_whole_file_is_read(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"x": torch.arange(10.0), "y": torch.arange(3.0)}, path)
    rewrite(path, lambda records: records.pop("a/.format_version", None) and None)
    with opened(path) as contents:
        assert torch.equal(contents["y"].read(), torch.arange(3.0))


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_is_an_error_of_the_file_or_harmless(tmp_path, seed):
    path = tmp_path / "a.pth"
    wanted = {"x": torch.randn(5, 2), "y": torch.randn(3)}
    torch.save(wanted, path)
    raw = bytearray(path.read_bytes())
    generator = torch.Generator().manual_seed(seed)

    def draw(below):
        return int(torch.randint(below, (1,), generator=generator))

    for _ in range(3):
        raw[draw(len(raw))] = draw(256)
    path.write_bytes(raw[: len(raw) - draw(2) * draw(300)])
    try:
        with opened(path) as contents:
            for value in contents.values():
                if isinstance(value, StoredTensor) and value.numel < 10**6:
                    value.read()
    except WeightsError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_something_that_is_not_a_mapping_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="it holds a list, not names and tensors"):
        refuse(tmp_path / "a.pth")
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, stream)
    (tmp_path / "a.pth").write_bytes(stream.getvalue()[500:])
    with pytest.raises(WeightsError, match=r"is not a file that torch\.save wrote"):
        refuse(tmp_path / "a.pth")


def test_sparse_tensors_are_not_taken_for_weights(tmp_path):
    torch.save({"a": torch.eye(3).to_sparse(), "b": torch.zeros(2)}, tmp_path / "a.pth")
    try:
        with opened(tmp_path / "a.pth") as contents:
            assert not isinstance(contents["a"], StoredTensor)
    except WeightsError as error:
        assert "a.pth" in str(error)  # noqa: PT017

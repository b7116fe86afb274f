"""Networks leave memory after each run, and come back the same."""

import mmap
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nsarm_cli.models.interface import Sampling
from nsarm_cli.weights import mapped
from nsarm_cli.weights.families import load_resolver
from nsarm_cli.weights.mapped import leave_after_use

CPU = torch.device("cpu")
MAPS = Path("/proc/self/smaps")

pytestmark = pytest.mark.skipif(
    not hasattr(mmap, "MADV_DONTNEED"), reason="this system cannot be told to drop pages"
)


def resident(names):
    """Bytes of files that are in memory through a mapping that nothing can write to."""
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", MAPS.read_text())
    ours = [
        part for part in parts if part.split("\n")[0].endswith(tuple(names)) and " r--s" in part
    ]
    assert ours
    return sum(1024 * int(re.search(r"Rss: +(\d+)", part)[1]) for part in ours)


def resolve(resolver):
    lr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return resolver.resolve(lr, [torch.Generator().manual_seed(0)], Sampling())


def visitors(resolver):
    model = resolver.model
    return {
        "autoencoder.encoder": model.autoencoder.encoder,
        "transformation": model.transformation,
        "autoencoder.decoder": model.autoencoder.decoder,
    }


@pytest.mark.parametrize("count", [1, 2])
def test_the_picture_is_the_same_again_and_again(folder, count):
    whole = load_file(folder / "model.safetensors")
    files = [folder / f"{i}.safetensors" for i in range(count)]
    for i, path in enumerate(files):
        save_file({name: whole[name] for name in sorted(whole)[i::count]}, path)
    resolver = load_resolver(str(folder), CPU, torch.float32)
    expected = resolve(resolver)
    networks = visitors(resolver)
    assert leave_after_use(networks, files, worthwhile=0) == list(networks)
    for _ in range(2):
        assert torch.equal(resolve(resolver), expected)


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux tells what is in memory")
def test_weights_are_in_memory_while_they_work_and_not_afterwards(folder):
    resolver = load_resolver(str(folder), CPU, torch.float32)
    seen = []
    network = resolver.model.transformation
    network.register_forward_hook(lambda *_: seen.append(resident(["model.safetensors"])))
    leave_after_use(visitors(resolver), [folder / "model.safetensors"], worthwhile=0)
    resolve(resolver)
    assert seen[0] >= sum(tensor.nbytes for tensor in network.parameters()) - 2 * mmap.PAGESIZE
    assert resident(["model.safetensors"]) == 0


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux tells what is in memory")
def test_a_network_that_fails_leaves_too(folder):
    resolver = load_resolver(str(folder), CPU, torch.float32)
    leave_after_use(visitors(resolver), [folder / "model.safetensors"], worthwhile=0)
    with pytest.raises(RuntimeError):
        resolver.model.transformation(torch.zeros(1, 3, 4, 4))
    assert resident(["model.safetensors"]) == 0


def test_what_would_be_converted_or_is_small_stays(folder):
    resolver = load_resolver(str(folder), CPU, torch.bfloat16)
    files = [folder / "model.safetensors"]
    assert leave_after_use(visitors(resolver), files, worthwhile=0) == []
    resolver = load_resolver(str(folder), CPU, torch.float32)
    assert leave_after_use(visitors(resolver), files) == []


def test_a_system_that_cannot_drop_pages_keeps_them(folder, monkeypatch):
    monkeypatch.setattr(mapped, "_DROP", None)
    resolver = load_resolver(str(folder), CPU, torch.float32)
    assert leave_after_use(visitors(resolver), [folder / "model.safetensors"], 0) == []


def test_loading_lets_large_networks_leave(folder, monkeypatch):
    called = []

    def spy(networks, files, **_):
        called.append((list(networks), [path.name for path in files]))

    monkeypatch.setattr("nsarm_cli.weights.families.leave_after_use", spy)
    load_resolver(str(folder), CPU, torch.float32)
    assert called == [
        (["autoencoder.encoder", "transformation", "autoencoder.decoder"], ["model.safetensors"])
    ]

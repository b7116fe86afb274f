"""A device that runs out of memory: less and less is put on it, and every step is told."""

import numpy as np
import pytest
import torch

from nsarm_cli.errors import DeviceError
from nsarm_cli.memory.device import card_of
from nsarm_cli.memory.planner import Wishes
from nsarm_cli.memory.relief import Relief
from nsarm_cli.memory.session import Session, check
from nsarm_cli.memory.settings import MemorySettings, Offload, Quantize
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.config import NSARM_NANO
from nsarm_cli.models.nsarm.memory import memory_needs
from nsarm_cli.pipeline import Upscaler
from nsarm_cli.weights.families import load_resolver

CPU = torch.device("cpu")
FP32 = torch.float32


class Full:
    """A stand-in for a resolver that runs out of memory for the first calls."""

    def __init__(self, resolver, failures):
        self.resolver, self.failures, self.batches = resolver, failures, []

    def __getattr__(self, name):
        return getattr(self.resolver, name)

    def resolve(self, lr, *arguments):
        self.batches.append(len(lr))
        if self.failures > 0:
            self.failures -= 1
            raise torch.OutOfMemoryError("full")
        return self.resolver.resolve(lr, *arguments)


class Latents:
    """A stand-in for a model whose windows are joined as latents."""

    scale, window, overlap, pixels_per_latent = 4, 32, 8, 4
    latent_weights = torch.ones(8, 8)
    sampling, color = Sampling(), "none"

    def resolve(self, *_):
        raise AssertionError("such windows are joined before they are decoded")

    def features(self, lr, generators, sampling, on_scale=None, trace=None):
        return torch.nn.functional.avg_pool2d(lr, 4)

    def decode(self, feature):
        return feature.repeat_interleave(16, -2).repeat_interleave(16, -1)


class Steps:
    """A stand-in for `Relief` that has so many steps, and notes what it was allowed."""

    def __init__(self, steps):
        self.steps, self.allowed = steps, []

    def ease(self, *, may_change):
        self.allowed.append(may_change)
        self.steps -= 1
        return self.steps >= 0


def test_a_smaller_batch_is_tried_first_and_gives_the_same_picture(resolver, make_picture, caplog):
    source = make_picture(50, 33)
    expected = np.asarray(Upscaler(resolver, CPU, batch=4).upscale(source))
    full, steps = Full(resolver, failures=2), Steps(0)
    picture = Upscaler(full, CPU, batch=4, relief=steps).upscale(source)
    assert np.array_equal(picture, expected)
    assert full.batches[:4] == [4, 2, 1, 1]
    assert set(full.batches[2:]) == {1}
    assert [r.getMessage() for r in caplog.records] == [
        "cpu is out of memory: going on with batch 2",
        "cpu is out of memory: going on with batch 1",
    ]
    assert steps.allowed == []


def test_then_the_model_takes_less_and_only_at_the_start_may_it_change(resolver, make_picture):
    source = make_picture(50, 33)
    steps = Steps(2)
    Upscaler(Full(resolver, failures=2), CPU, batch=1, relief=steps).upscale(source)
    assert steps.allowed == [True, True]

    late, steps = Full(resolver, failures=0), Steps(1)
    upscaler = Upscaler(late, CPU, batch=1, relief=steps)
    upscaler.upscale(source, on_progress=lambda _: fail_once(late))
    assert steps.allowed == [False]


def fail_once(full):
    if not hasattr(full, "failed"):
        full.failed, full.failures = True, 1


def test_when_nothing_is_left_it_is_an_error(resolver, make_picture):
    with pytest.raises(DeviceError, match="out of memory with one window at once"):
        Upscaler(Full(resolver, 9), CPU, batch=2, relief=Steps(3)).upscale(make_picture(9, 9))


class FullLatents(Latents):
    """A model that joins latents and is out of memory for its first windows and first decodes."""

    def __init__(self, windows, decodes):
        self.left, self.batches, self.decodes = [windows, decodes], [], 0

    def features(self, lr, *arguments):
        self.batches.append(len(lr))
        self._fail(0)
        return super().features(lr, *arguments)

    def decode(self, feature):
        self.decodes += 1
        self._fail(1)
        return super().decode(feature)

    def _fail(self, which):
        self.left[which] -= 1
        if self.left[which] >= 0:
            raise torch.OutOfMemoryError("full")


def test_windows_that_are_joined_as_latents_are_eased_in_the_same_way(make_picture):
    source = make_picture(50, 33)
    expected = np.asarray(Upscaler(Latents(), CPU, batch=2).upscale(source))
    full, steps = FullLatents(windows=2, decodes=1), Steps(2)
    picture = Upscaler(full, CPU, batch=2, relief=steps).upscale(source)
    assert np.array_equal(picture, expected)
    assert full.batches[:4] == [2, 1, 1, 1]
    assert full.decodes == 2
    assert steps.allowed == [True, False]  # in the decoder it is too late for other numbers


def test_without_room_to_decode_it_is_an_error(make_picture):
    with pytest.raises(DeviceError, match="out of memory while decoding"):
        Upscaler(FullLatents(0, 9), CPU, relief=Steps(3)).upscale(make_picture(9, 9))


def relief_of(wishes, settings=None):
    resolver = load_resolver("nsarm-nano", CPU, FP32)
    return Relief(
        resolver,
        CPU,
        needs=memory_needs(NSARM_NANO),
        memory=card_of("8GB"),
        wishes=wishes,
        settings=settings or MemorySettings(FP32),
    )


def test_the_steps_go_from_offloading_to_quantising(caplog):
    pytest.importorskip("torchao", reason="needs the extra nsarm[quantize]")
    relief = relief_of(Wishes(FP32))
    taken = []
    while relief.ease(may_change=True):
        taken.append((relief.settings.offload, relief.settings.quantize))
    assert taken[:3] == [
        (Offload.IDLE, Quantize.NONE),
        (Offload.WEIGHTS, Quantize.NONE),
        (Offload.ALL, Quantize.NONE),
    ]
    assert [quantize for _, quantize in taken[3:]] == [Quantize.INT8]
    assert "cpu is out of memory: going on with fp32, batch 1, offload idle" in caplog.text


def test_in_the_middle_of_a_picture_nothing_is_quantised():
    relief = relief_of(Wishes(FP32))
    while relief.ease(may_change=False):
        pass
    assert relief.settings == MemorySettings(FP32, offload=Offload.ALL)


def test_wishes_are_kept():
    relief = relief_of(Wishes(FP32, offload=Offload.NONE, quantize=Quantize.NONE))
    assert not relief.ease(may_change=True)


def test_a_model_that_does_not_fit_when_it_is_loaded_is_offloaded(monkeypatch):
    from nsarm_cli.memory.placement import Placement

    tried = []
    apply = Placement.apply

    def crowded(self, settings):
        tried.append(settings.offload)
        if settings.offload in {Offload.NONE, Offload.IDLE}:
            raise torch.OutOfMemoryError("full")
        apply(self, settings)

    monkeypatch.setattr(Placement, "apply", crowded)
    relief = relief_of(Wishes(FP32))
    relief.start()
    assert tried == [Offload.NONE, Offload.IDLE, Offload.WEIGHTS]
    assert relief.settings.offload is Offload.WEIGHTS


def test_a_session_loads_what_it_planned():
    session = Session.prepare("nsarm-nano", CPU, Wishes(FP32))
    resolver, relief = session.load()
    assert session.plan.fits
    assert session.plan.settings == MemorySettings(FP32)
    assert relief is not None
    assert resolver.window == 64


def test_a_session_says_what_holds_after_the_device_was_full():
    session = Session.prepare("nsarm-nano", CPU, Wishes(FP32), card_of("8GB"))
    _, relief = session.load()
    assert session.settings == session.plan.settings
    assert relief is not None
    assert relief.ease(may_change=False)
    assert session.settings.offload is Offload.IDLE


def test_offloading_beside_a_processor_is_refused():
    with pytest.raises(DeviceError, match="offload weights does nothing on cpu"):
        check(Wishes(FP32, offload=Offload.WEIGHTS), CPU)
    check(Wishes(FP32, offload=Offload.NONE), CPU)

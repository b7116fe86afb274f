"""Recorded passes give what plain ones give, whatever changes from run to run.

The recorder is a stand-in for a CUDA graph: it notes the operations of a pass with the tensors
that they work on, and plays them again on the same memory. Whatever a pass would take from anywhere
else than its places is as old in a playback as it is in a graph.
"""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nsarm_cli.memory.placement import Placement
from nsarm_cli.memory.settings import MemorySettings, Offload
from nsarm_cli.models.core.condition import Condition
from nsarm_cli.models.core.recorded import RecordedPasses
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver

CPU = torch.device("cpu")
PASSES = 3
SAMPLING = Sampling(temperature=0.5)


class Operations(TorchDispatchMode):
    """Notes every operation with its arguments and results."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, out))
        return out


class Recorder:
    """Records as a CUDA graph does, and counts."""

    def __init__(self):
        self.sets = self.recorded = self.played = 0

    def begin(self):
        self.sets += 1
        return self.record

    def record(self, work):
        self.recorded += 1
        with Operations() as operations:
            result = work()

        def replay():
            self.played += 1
            for func, args, kwargs, out in operations.done:
                again = func(*args, **kwargs)
                for place, value in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                        place.copy_(value)
            return result

        return replay


@pytest.fixture
def recorder():
    return Recorder()


def windows(seed, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1


def run(resolver, lr, seed=0, sampling=SAMPLING):
    trace = {}
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(lr))]
    trace["picture"] = resolver.resolve_together(lr, generators, sampling, trace=trace)
    return trace


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_every_run_gives_what_it_gives_without_recordings(make_model, recorder):
    plain, resolver = NsarmResolver(make_model()), NsarmResolver(make_model())
    RecordedPasses.install(resolver.transformer, recorder.begin)
    for seed in range(4):
        lr = windows(seed)
        assert_same(run(resolver, lr, seed), run(plain, lr, seed))
        assert recorder.recorded == (PASSES if seed else 0)
        assert recorder.played == PASSES * seed
    assert recorder.sets == 1


def test_prompts_of_one_length_share_recordings_and_another_begins_anew(make_model, recorder):
    model, recorded = make_model(text=True), make_model(text=True)
    RecordedPasses.install(recorded.transformer, recorder.begin)
    generator = torch.Generator().manual_seed(1)
    for seed, length in enumerate((5, 5, 5, 7, 7, 7)):
        prompt = torch.randn(length, 256, generator=generator)
        lr = windows(seed)
        wanted = run(NsarmTextResolver(model, prompt), lr)
        assert_same(run(NsarmTextResolver(recorded, prompt), lr), wanted)
    assert recorder.sets == 2
    assert recorder.recorded == 2 * PASSES


def test_guidance_by_logits_is_recorded_and_inside_the_blocks_is_not(make_model, recorder):
    prompt = torch.randn(5, 256, generator=torch.Generator().manual_seed(1))
    plain = NsarmTextResolver(make_model(text=True), prompt)
    resolver = NsarmTextResolver(make_model(text=True), prompt)
    RecordedPasses.install(resolver.transformer, recorder.begin)
    for layer, played in ((0, 2 * PASSES), (-2, 2 * PASSES)):
        sampling = dataclasses.replace(SAMPLING, guidance=3.0, guidance_layer=layer)
        for seed in range(3):
            lr = windows(seed)
            assert_same(run(resolver, lr, sampling=sampling), run(plain, lr, sampling=sampling))
        assert recorder.played == played


def test_another_size_of_a_batch_begins_anew(make_model, recorder):
    plain, resolver = NsarmResolver(make_model()), NsarmResolver(make_model())
    RecordedPasses.install(resolver.transformer, recorder.begin)
    for seed, count in enumerate((2, 2, 2, 1, 1, 2, 2)):
        lr = windows(seed, count)
        assert_same(run(resolver, lr, seed), run(plain, lr, seed))
    assert recorder.sets == 3
    assert recorder.recorded == 3 * PASSES


def test_weights_that_were_put_elsewhere_are_recorded_anew(make_model, recorder):
    plain, resolver = NsarmResolver(make_model(seed=1)), NsarmResolver(make_model())
    RecordedPasses.install(resolver.transformer, recorder.begin)
    for _ in range(2):
        run(resolver, windows(0))
    resolver.model.load_state_dict(plain.model.state_dict(), assign=True)
    Placement(resolver, CPU).apply(MemorySettings(torch.float32))
    for seed in range(3):
        assert_same(run(resolver, windows(seed)), run(plain, windows(seed)))
    assert recorder.sets == 2


@pytest.mark.parametrize("offload", [Offload.WEIGHTS, Offload.ALL])
def test_what_waits_elsewhere_is_not_recorded(make_model, recorder, offload):
    plain, resolver = NsarmResolver(make_model()), NsarmResolver(make_model())
    RecordedPasses.install(resolver.transformer, recorder.begin)
    Placement(resolver, CPU).apply(MemorySettings(torch.float32, offload=offload))
    for seed in range(3):
        assert_same(run(resolver, windows(seed)), run(plain, windows(seed)))
    assert recorder.sets == 0


def test_a_result_stays_when_the_next_run_is_played(make_model, recorder):
    resolver = NsarmResolver(make_model())
    transformer, schedule = resolver.transformer, resolver.config.schedule
    RecordedPasses.install(transformer, recorder.begin)
    generator = torch.Generator().manual_seed(0)
    results = []
    for _ in range(4):
        condition = transformer.prepare(Condition(torch.randn(1, 64, generator=generator)))
        cache = transformer.allocate_cache(1, schedule)
        rope = transformer.rope(schedule, CPU)
        results.append(transformer.hidden([], 0, schedule, rope, condition, cache=cache))
    kept = [result.clone() for result in results]
    assert recorder.played == 3
    assert not torch.equal(results[2], results[3])
    for result, before in zip(results, kept, strict=True):
        assert torch.equal(result, before)

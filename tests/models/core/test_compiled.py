"""A compiled model gives what the plain one gives, and one function serves all its blocks."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend

from nsarm_cli.acceleration import accelerate
from nsarm_cli.acceleration.attention import MeasuredAttention
from nsarm_cli.memory.placement import Placement
from nsarm_cli.memory.settings import MemorySettings, Offload
from nsarm_cli.models.core.attention import scale_by_scale
from nsarm_cli.models.core.compiled import compile_network
from nsarm_cli.models.core.recorded import RecordedPasses
from nsarm_cli.models.interface import Sampling
from nsarm_cli.models.nsarm.resolver import NsarmResolver, NsarmTextResolver

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def windows():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def traced(resolver, windows, guidance=1.0):
    """Logits, bits and picture of a run."""
    trace: dict[str, torch.Tensor] = {}
    generators = [torch.Generator().manual_seed(i) for i in range(len(windows))]
    sampling = Sampling(temperature=0.5, guidance=guidance)
    trace["picture"] = resolver.resolve(windows, generators, sampling, trace=trace)
    return trace


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_samples_the_same_bits(make_model, windows, backend):
    model = make_model()
    plain = traced(NsarmResolver(model), windows)
    resolver = NsarmResolver(model)
    accelerate(resolver, CPU, backend)
    compiled = traced(resolver, windows)
    assert compiled.keys() == plain.keys()
    for name, tensor in plain.items():
        assert torch.allclose(compiled[name].float(), tensor.float(), atol=1e-5), name


def test_text_and_guidance_run_compiled_too(make_model, windows):
    prompt = torch.randn(5, 256, generator=torch.Generator().manual_seed(1))
    model = make_model(text=True)
    plain = traced(NsarmTextResolver(model, prompt), windows, guidance=2.0)
    resolver = NsarmTextResolver(model, prompt)
    accelerate(resolver, CPU, "aot_eager")
    compiled = traced(resolver, windows, guidance=2.0)
    assert torch.allclose(compiled["picture"], plain["picture"], atol=1e-5)


def test_there_is_a_function_per_pass_and_not_per_block(make_model, windows):
    model = make_model()
    depth, passes = len(model.transformer.blocks), 3
    assert depth == 3
    counter = CompileCounterWithBackend("eager")
    resolver = NsarmResolver(model)
    accelerate(resolver, CPU, counter)
    traced(resolver, windows[:1])
    assert counter.frame_count == passes
    traced(resolver, windows[1:])
    assert counter.frame_count == passes


def test_the_whole_block_is_one_graph(make_model, windows):
    model = make_model()
    counter = CompileCounterWithBackend("eager")
    resolver = NsarmResolver(model)
    accelerate(resolver, CPU, counter)
    traced(resolver, windows[:1])
    products = [str(node.target) for graph in counter.graphs for node in graph.graph.nodes]
    attention = [name for name in products if "scaled_dot_product" in name]
    known = model.config.preliminary
    assert len(counter.graphs) == 3
    assert len(attention) == known + 2  # the prefill calls attention once per scale


def test_a_measured_kernel_holds_in_compiled_blocks(make_model, windows):
    """Each pass is measured once and still has one function."""
    plain = traced(NsarmResolver(make_model()), windows)
    resolver = NsarmResolver(make_model())
    counter = CompileCounterWithBackend("eager")
    accelerate(resolver, CPU, counter)
    seconds = iter([1.0, 0.5] * 3)  # PyTorch's choice, then the other, in three passes
    resolver.transformer.plan_attention = MeasuredAttention(
        lambda _: next(seconds), (SDPBackend.MATH,)
    )
    for _ in range(2):
        found = traced(resolver, windows)
        for name, tensor in plain.items():
            assert torch.allclose(found[name].float(), tensor.float(), atol=1e-5), name
    assert counter.frame_count == 3
    nodes = [str(node.target) for graph in counter.graphs for node in graph.graph.nodes]
    assert any("sdpa" in name and "dot_product" not in name for name in nodes)


def test_on_a_gpu_passes_are_recorded_and_attention_is_measured(make_model):
    model = make_model()
    accelerate(NsarmResolver(model), torch.device("cuda"), "eager")
    assert isinstance(model.transformer.plan_attention, MeasuredAttention)
    assert isinstance(model.transformer.through_blocks.__self__, RecordedPasses)
    on_processor = make_model()
    accelerate(NsarmResolver(on_processor), CPU, "eager")
    assert on_processor.transformer.plan_attention is scale_by_scale
    assert on_processor.transformer.through_blocks.__self__ is on_processor.transformer


def test_networks_that_wait_elsewhere_are_compiled_once(make_model, windows):
    """What brings their weights and takes them away again is no part of a graph."""
    model = make_model()
    resolver = NsarmResolver(model)
    plain = traced(resolver, windows[:1])
    Placement(resolver, CPU, torch.clone).apply(MemorySettings(torch.float32, offload=Offload.IDLE))
    counter = CompileCounterWithBackend("eager")
    for network in resolver.visitors:
        compile_network(network, counter)
    for _ in range(3):
        found = traced(resolver, windows[:1])
        assert torch.allclose(found["picture"], plain["picture"], atol=1e-5)
    assert counter.frame_count == len(resolver.visitors)
    # The compiler looked at nothing else: at no hook, and at no network twice.
    assert counters["frames"]["total"] == len(resolver.visitors)


def test_pinned_kernels_stay_where_they_are_pinned(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _: True)
    convolution = torch.nn.Conv2d(5, 7, 3)
    kernels, place = convolution.weight.detach().clone(), convolution.weight.data_ptr()
    compile_network(convolution, "eager")
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert convolution.weight.data_ptr() == place
    assert torch.equal(convolution.weight, kernels)


def test_names_of_weights_stay(make_model):
    model = make_model()
    names = list(model.state_dict())
    accelerate(NsarmResolver(model), CPU, "eager")
    assert list(model.state_dict()) == names

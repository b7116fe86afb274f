"""The attention kernel that was quickest is taken, and nothing else changes."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from nsarm_cli.acceleration.attention import BACKENDS, MeasuredAttention
from nsarm_cli.models.core.attention import AttentionPass, scale_by_scale

CPU = torch.device("cpu")
ASKED = AttentionPass(1, 2, 16, (1, 4), 3, CPU, torch.float32)
FLASH, MATH = SDPBackend.FLASH_ATTENTION, SDPBackend.MATH


class Times:
    """Says how long calls take, in the order in which they are measured."""

    def __init__(self, *seconds):
        self.left = list(seconds)

    def __call__(self, call):
        taken = self.left.pop(0)
        if taken is None:
            raise RuntimeError("no available kernel")
        call()
        return taken


@pytest.fixture
def enabled(monkeypatch):
    """Which kernels were allowed in each call of attention."""
    seen = []
    flags = {
        SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
        SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled,
        SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled,
        SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled,
    }

    def attention(queries, *_, **__):
        seen.append({backend for backend, flag in flags.items() if flag()})
        return queries

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    return seen


def tokens(number):
    return torch.zeros(1, 2, number, 16)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((1.0, 0.7, 0.5, 0.6), BACKENDS[1]),
        ((1.0, None, 0.8, None), BACKENDS[1]),
        ((1.0, 0.95, 0.95, 1.2), None),
        ((1.0, None, None, None), None),
    ],
)
def test_the_quickest_is_taken_if_it_is_clearly_quicker(seconds, chosen, enabled):
    plan = MeasuredAttention(Times(*seconds))
    attend = plan(ASKED)
    measured = len(enabled)
    attend(tokens(5), tokens(8), tokens(8))
    assert len(enabled) == measured + 2  # a call per scale
    if chosen is None:
        assert {FLASH, MATH} <= enabled[-1]
    else:
        assert enabled[-1] == {chosen}


def test_each_kind_of_pass_is_measured_once():
    times = Times(*[1.0] * 8)
    plan = MeasuredAttention(times)
    for asked in (ASKED, ASKED, AttentionPass(2, 2, 16, (1, 4), 3, CPU, torch.float32)):
        plan(asked)
    assert times.left == []


def test_a_kernel_that_this_device_lacks_is_passed_over():
    def seconds(call):
        call()
        return 1.0

    plan = MeasuredAttention(seconds, (SDPBackend.EFFICIENT_ATTENTION,))
    result = plan(ASKED)(tokens(5), tokens(8), tokens(8))
    assert torch.equal(result, scale_by_scale(ASKED)(tokens(5), tokens(8), tokens(8)))

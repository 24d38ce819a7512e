"""The replacement convolutions give ATen's gradients of gradients, eager and compiled."""

import copy

import pytest
import torch
from torch import nn

from unstill.trainer.models.closed_conv import ClosedConv3d, close_convolutions, conv, dgrad, wgrad

pytestmark = pytest.mark.usefixtures("one_thread")


def network():
    torch.manual_seed(0)
    strided, grouped = nn.Conv3d(3, 4, 3, stride=2, padding=1), nn.Conv3d(4, 6, (1, 3, 2), groups=2, bias=False)
    return nn.Sequential(strided, nn.GELU(), grouped, nn.GELU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 3))


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_penalty_gradients_are_those_of_plain_convolutions(compiled, penalty_gradients):
    plain = network().double()
    closed = copy.deepcopy(plain)
    assert close_convolutions(closed) == 2 and isinstance(closed[2], ClosedConv3d)
    motion = torch.randn(2, 3, 5, 9, 8, dtype=torch.float64)
    expected = penalty_gradients(plain, motion, torch.tensor([0, 2]), False)
    found = penalty_gradients(closed, motion, torch.tensor([0, 2]), compiled)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-14)


def test_each_op_is_differentiable_twice():
    options = ([2, 1, 1], [1, 0, 1], [1, 1, 2], 1)
    x = torch.randn(1, 2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    gy = torch.randn_like(conv(x, w, *options)).requires_grad_(True)
    assert torch.autograd.gradgradcheck(lambda x, w: conv(x, w, *options), (x, w))
    assert torch.autograd.gradgradcheck(lambda gy, w: dgrad(gy, w, x.detach(), *options), (gy, w))
    assert torch.autograd.gradgradcheck(lambda x, gy: wgrad(x, gy, w.detach(), *options), (x, gy))


def test_weight_gradients_in_bf16_on_a_cpu_hold_no_garbage():
    """At this shape oneDNN's are wrong, and partly memory that was never written, where there is AVX512-BF16."""
    torch.manual_seed(0)
    x, gy = torch.randn(2, 256, 2, 7, 7).bfloat16(), torch.randn(2, 256, 2, 7, 7).bfloat16()
    w, options = torch.randn(256, 256, 3, 3, 3).bfloat16(), ([1] * 3, [1] * 3, [1] * 3, 1)
    expected = wgrad(x.float(), gy.float(), w.float(), *options)
    unset = [torch.full((w.numel(),), 1e30) for _ in range(4)]
    del unset  # what is allocated next may begin with these values
    found = wgrad(x, gy, w, *options)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01)


def test_autocast_and_memory_format_are_respected():
    plain = network().to(memory_format=torch.channels_last_3d)
    closed = copy.deepcopy(plain)
    close_convolutions(closed)
    clips = torch.randn(2, 3, 5, 9, 8).to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        a, b = plain[0](clips), closed[0](clips)
    assert a.dtype == b.dtype == torch.bfloat16 and b.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)

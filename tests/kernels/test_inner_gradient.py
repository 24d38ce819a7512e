import pytest
import torch
import torch._dynamo
from torch import Tensor

from unstill.kernels.inner_gradient import wanted

CALLS: list[tuple[bool, bool]] = []


@torch.library.custom_op("unstill_tests::scaled", mutates_args=())
def scaled(x: Tensor, factor: float, weight: Tensor) -> Tensor:
    """factor * weight * x: bilinear, so its gradients are itself."""
    return factor * weight * x


@scaled.register_fake
def _(x, factor, weight):
    return torch.empty_like(x)


def _save(ctx, inputs, output):
    x, ctx.factor, weight = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, g):
    x, weight = ctx.saved_tensors
    of_x, of_weight = wanted(ctx, 0), wanted(ctx, 1)
    CALLS.append((of_x, of_weight))
    return scaled(g, ctx.factor, weight) if of_x else None, None, scaled(g, ctx.factor, x) if of_weight else None


scaled.register_autograd(_backward, setup_context=_save)


@pytest.fixture
def leaves():
    CALLS.clear()
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(3, dtype=torch.float64, generator=draw).requires_grad_() for _ in range(3)]


def penalised(multiply, clip, first, second):
    """A network of two layers, one weight a leaf and one computed, and its penalty."""
    logits = multiply(multiply(clip, 2.0, first).sin(), 3.0, second.exp()).sum()
    (slope,) = torch.autograd.grad(logits, clip, create_graph=True)
    return logits + slope.square().sum()


def test_the_inner_gradient_wants_the_clip_only(leaves):
    _, first, second = leaves
    loss = penalised(scaled, *leaves)
    assert CALLS == [(True, False)] * 2
    CALLS.clear()
    torch.autograd.grad(loss, (first, second))
    assert CALLS and all(of_weight for _, of_weight in CALLS)  # every derivative leads to a weight now


def test_leaves_that_are_asked_for_are_wanted(leaves):
    clip, weight, _ = leaves
    y = scaled(clip, 2.0, weight).sum()
    torch.autograd.grad(y, weight, retain_graph=True)
    y.backward(inputs=[weight], retain_graph=True)
    assert CALLS == [(False, True)] * 2
    y.backward()
    assert CALLS[-1] == (True, True)
    scaled(clip, 2.0, weight.detach()).sum().backward()
    assert CALLS[-1] == (True, False)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_gradients_are_those_of_plain_operations(leaves, backend):
    def plain(x, factor, weight):
        return factor * weight * x

    expected = torch.autograd.grad(penalised(plain, *leaves), leaves)
    function = torch.compile(penalised, backend=backend, fullgraph=True)
    found = torch.autograd.grad(function(scaled, *leaves), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)
    assert (True, False) in CALLS  # the inner gradient left the weights out while it was traced

"""The closed MLP ops against PyTorch's layers: values, gradients and gradients of gradients."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import check_gelu_products
from torch import Tensor

from unstill.kernels.gelu_derivatives import second_order_torch, second_order_triton
from unstill.kernels.gelu_linear import (
    gelu_linear,
    gelu_linear_dgrad,
    gelu_linear_dgrad_backward,
    gelu_linear_op,
    gelu_linear_wgrad,
)
from unstill.kernels.mlp import mlp, mlp_backward, mlp_double_backward, mlp_op

M, C, H, D = 7, 3, 5, 4


def normal(*shape: int, dtype=torch.float64, grad: bool = True, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)
    return made.to(dtype).requires_grad_(grad)


def weights(bias: bool, dtype=torch.float64) -> list[Tensor | None]:
    w1, b1, w2, b2 = (
        normal(H, C, dtype=dtype),
        normal(H, dtype=dtype),
        normal(D, H, dtype=dtype),
        normal(D, dtype=dtype),
    )
    return [w1, b1 if bias else None, w2, b2 if bias else None]


@pytest.fixture(params=[2**20, 3 * H * 8], ids=["one chunk", "chunks of three rows"])
def chunked(request, monkeypatch):
    monkeypatch.setitem(importlib.import_module("unstill.kernels.row_chunks").CHUNK_BYTES, "cpu", request.param)


CLOSED = {
    "gelu": lambda x, w1, b1, w2, b2: gelu_linear(F.linear(x, w1, b1), w2, b2),
    "mlp": mlp,
}


def plain(x, w1, b1, w2, b2):
    return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)


def penalised(form, x, *parameters) -> tuple[Tensor, ...]:
    """Result, inner gradient, and gradients of a loss of both, as a gradient penalty takes them."""
    y = form(x, *parameters)
    (g,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
    loss = y.cos().sum() + g.square().sum().sqrt()
    return y, g, *torch.autograd.grad(loss, [x, *(p for p in parameters if p is not None)])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("op", CLOSED)
def test_a_penalised_loss_has_the_gradients_of_plain_layers(op, bias, chunked):
    x = normal(2, M, C)
    for found, expected in zip(
        penalised(CLOSED[op], x, *weights(bias)), penalised(plain, x, *weights(bias)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("op", CLOSED)
def test_compiled_gradients_are_those_of_eager(op, backend):
    def loss(x, *parameters):
        y = CLOSED[op](x, *parameters)
        (g,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        return y.cos().sum() + g.square().sum().sqrt()

    x, found = normal(2, M, C), []
    torch._dynamo.reset()
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        for function in (loss, torch.compile(loss, backend=backend, fullgraph=True)):
            parameters = weights(True)
            function(x, *parameters).backward()
            found.append(torch.cat([p.grad.flatten() for p in parameters]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)


def test_derivatives_of_every_order_are_right(chunked):
    h, w, b, dy = normal(M, H), normal(D, H), normal(D), normal(M, D)
    assert torch.autograd.gradcheck(gelu_linear, (h, w, b))
    assert torch.autograd.gradgradcheck(gelu_linear, (h, w, b))  # by every pair of arguments
    assert torch.autograd.gradcheck(gelu_linear_dgrad, (dy, h, w))
    x, parameters = normal(M, C), weights(True)
    assert torch.autograd.gradcheck(mlp, (x, *parameters))

    def inner(x, dy, *parameters):
        return torch.autograd.grad(mlp(x, *parameters), x, dy, create_graph=True)[0]

    assert torch.autograd.gradcheck(inner, (x, dy, *parameters[:3], parameters[3].detach()))


def test_opcheck():
    h, w, b, dy, a = normal(M, H), normal(D, H), normal(D), normal(M, D), normal(M, H, seed=1)
    torch.library.opcheck(gelu_linear_op, (h, w, b))
    torch.library.opcheck(gelu_linear_dgrad, (dy, h, w))
    torch.library.opcheck(gelu_linear_wgrad, (dy, h))
    torch.library.opcheck(gelu_linear_dgrad_backward, (a.detach(), dy.detach(), h.detach(), w.detach()))
    x, (w1, b1, w2, b2) = normal(M, C), weights(True)
    torch.library.opcheck(mlp_op, (x, w1, b1, w2, b2))
    for has_weights in (False, True):
        # its gradient is that of dx alone: the generic check would differentiate the weight gradients
        utilities = ("test_schema", "test_faketensor")
        torch.library.opcheck(mlp_backward, (dy, x, w1, b1, w2, has_weights), test_utils=utilities)
    detached = [t.detach() for t in (normal(M, C, seed=1), dy, x, w1, b1, w2)]
    torch.library.opcheck(mlp_double_backward, detached)


def test_the_inner_gradient_computes_no_weight_gradient():
    seen = []

    class Names(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "unstill":
                seen.append((func._opname, *(a for a in args if isinstance(a, bool))))
            return func(*args, **kwargs or {})

    for form in CLOSED.values():
        x, parameters = normal(M, C), weights(True)
        y = form(x, *parameters)
        with Names():
            torch.autograd.grad(y.sum(), x, create_graph=True)
    assert seen == [("gelu_linear_dgrad",), ("mlp_backward", False)]


def test_a_gradient_by_the_weights_is_refused_where_it_has_no_derivative():
    x, parameters = normal(M, C), weights(True)
    (g,) = torch.autograd.grad(mlp(x, *parameters).sum(), parameters[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="gradients by the weights are not differentiable"):
        g.sum().backward()
    for form in CLOSED.values():
        with pytest.raises(NotImplementedError, match="forward-mode"):
            torch.func.jvp(lambda x, form=form: form(x, *parameters), (x.detach(),), (torch.ones(M, C).double(),))


@pytest.mark.parametrize("op", CLOSED)
def test_under_autocast_it_is_as_exact_as_plain_layers(op):
    exact = penalised(plain, normal(64, C), *weights(True))
    errors = []
    for function in (plain, CLOSED[op]):
        x, parameters = normal(64, C, dtype=torch.float32), weights(True, torch.float32)

        def lowered(*arguments, function=function):
            with torch.autocast("cpu", torch.bfloat16):
                y = function(*arguments)
            assert y.dtype == torch.bfloat16
            return y.float()

        found = penalised(lowered, x, *parameters)
        errors.append(
            max(float((f - e).detach().norm() / e.detach().norm()) for f, e in zip(found, exact, strict=True))
        )
    assert errors[1] < 1.2 * errors[0] < 0.05


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("op", CLOSED)
def test_on_a_gpu(op, dtype, tolerance, monkeypatch):
    monkeypatch.setitem(importlib.import_module("unstill.kernels.row_chunks").CHUNK_BYTES, "cuda", 1 << 16)
    tensors = [normal(4096, 96), normal(384, 96), normal(384), normal(96, 384), normal(96)]
    tensors = [t.detach().div(t[0].numel() ** 0.5).cuda().requires_grad_() for t in tensors]
    lower = [t.detach().to(dtype).requires_grad_() for t in tensors]
    for found, expected in zip(penalised(CLOSED[op], *lower), penalised(plain, *tensors), strict=True):
        assert (found.double() - expected).norm() <= tolerance * expected.norm()


# ------------------------------------------------------------------------------------------------- elementwise part


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["torch", "triton"])
def test_elementwise_products_equal_autograds(kind, dtype, device):
    form = second_order_torch if kind == "torch" else second_order_triton
    check_gelu_products(form, "cpu" if kind == "torch" else device, dtype)

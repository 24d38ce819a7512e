"""The MLP of a transformer as ops with closed first and second derivatives, which recompute instead of storing.

With h = x W1' + b1 and y = gelu(h) W2' + b2 (W' is the transpose), a gradient penalty through plain layers stores
tensors of the hidden width: h, gelu(h), p = dy W2, the gradient of h, and the factors of both gelu derivatives. Here

    gelu_linear(h, W2, b2)            keeps h and dy
    mlp(x, W1, b1, W2, b2)            keeps x and dy, which are a quarter as wide; h and p are computed again

Derivation, for dy the cotangent of y, a the cotangent of dh (or dx, then z = a W1' is that of dh), products of equal
shape elementwise:

    backward          dh  = p gelu'(h),   dx = dh W1,   dW1 = dh' x,   dW2 = dy' gelu(h),   db1, db2: sums over rows
    double backward   q = z gelu'(h),   s = z p gelu''(h)
                      g_dy = q W2',   g_W2 = dy' q,   g_h = s,   g_x = s W1,   g_W1 = s' x + dh' a,   g_b1 = sum s

The ops are exact: they add the same products as PyTorch's layers, in another order. They run over chunks of rows, so
that tensors of the hidden width exist for a chunk only. Which gradients are computed is asked of autograd's engine
(``inner_gradient.wanted``): in the inner gradient of a penalty no weight gradient is.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .autocast import as_autocast
from .forward_mode import refuse_forward_mode
from .gelu_derivatives import gelu_backward_into, gelu_into, second_order
from .inner_gradient import wanted
from .row_chunks import Total, Workspace, affine, product_flops


def mlp(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor:
    """``F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)`` that keeps ``x`` and, for a double backward, its gradient.

    Args:
        x: (..., C) floating point.
        w1: (H, C). b1: (H,) or None. w2: (D, H). b2: (D,) or None.

    Returns:
        (..., D). Differentiable once in everything, and the gradient by ``x`` once more; gradients by the weights are
        not differentiable.

    Raises:
        NotImplementedError: forward-mode differentiation.
    """
    refuse_forward_mode("mlp", x, w1, w2)
    x, w1, b1, w2, b2 = as_autocast(x, w1, b1, w2, b2)
    y = mlp_op(x.reshape(-1, x.shape[-1]).contiguous(), w1, b1, w2, b2)
    return y.view(*x.shape[:-1], -1)


# ------------------------------------------------------------------------------------------------- custom ops


@torch.library.custom_op("unstill::mlp", mutates_args=())
def mlp_op(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor:
    """x (M, C), w1 (H, C), b1 (H,), w2 (D, H), b2 (D,) -> y (M, D)."""
    y = x.new_empty(x.shape[0], w2.shape[0])
    work = Workspace(x.shape[0], w1.shape[0], x)
    for rows in work:
        h = affine(x[rows], w1, b1, work["h"])
        affine(gelu_into(h, out=h), w2, b2, y[rows])
    return y


@torch.library.custom_op("unstill::mlp_backward", mutates_args=())
def mlp_backward(
    dy: Tensor, x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, weights: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x (M, C), w1 (H, C), b1 (H,) and w2 (D, H); the last three are empty without ``weights``."""
    dx = torch.empty_like(x)
    totals = [Total(x, *shape) for shape in (w1.shape, w1.shape[:1], w2.shape)] if weights else None
    work = Workspace(x.shape[0], w1.shape[0], x)
    for rows in work:
        h = affine(x[rows], w1, b1, work["h"])
        dh = torch.mm(dy[rows], w2, out=work["p"])
        gelu_backward_into(dh, h, grad_input=dh)
        torch.mm(dh, w1, out=dx[rows])
        if totals:
            totals[0].add_product(dh, x[rows])
            totals[1].add_rows(dh)
            totals[2].add_product(dy[rows], gelu_into(h, out=h))
    g_w1, g_b1, g_w2 = (t.value() for t in totals) if totals else (x.new_empty(0) for _ in range(3))
    return dx, g_w1, g_b1, g_w2


@torch.library.custom_op("unstill::mlp_double_backward", mutates_args=())
def mlp_double_backward(
    a: Tensor, dy: Tensor, x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cotangents of dy (M, D), x (M, C), w1, b1 and w2, for a (M, C) that of dx."""
    g_dy, g_x = torch.empty_like(dy), torch.empty_like(x)
    g_w1, g_b1, g_w2 = (Total(x, *shape) for shape in (w1.shape, w1.shape[:1], w2.shape))
    work = Workspace(x.shape[0], w1.shape[0], x)
    for rows in work:
        h = affine(x[rows], w1, b1, work["h"])
        p = torch.mm(dy[rows], w2, out=work["p"])
        z = torch.mm(a[rows], w1.t(), out=work["z"])
        s, scratch = work["s"], None if x.is_cuda else work["scratch"]
        second_order(h, p, z, first=z, second=s, by_p=p, scratch=scratch)
        q, dh = z, p
        torch.mm(q, w2.t(), out=g_dy[rows])
        torch.mm(s, w1, out=g_x[rows])
        g_w1.add_product(s, x[rows])
        g_w1.add_product(dh, a[rows])
        g_b1.add_rows(s)
        g_w2.add_product(dy[rows], q)
    return g_dy, g_x, g_w1.value(), g_b1.value(), g_w2.value()


@mlp_op.register_fake
def _(x, w1, b1, w2, b2):
    return x.new_empty(x.shape[0], w2.shape[0])


@mlp_backward.register_fake
def _(dy, x, w1, b1, w2, weights):
    shapes = (w1.shape, w1.shape[:1], w2.shape) if weights else ((0,), (0,), (0,))
    return torch.empty_like(x), *(x.new_empty(shape) for shape in shapes)


@mlp_double_backward.register_fake
def _(a, dy, x, w1, b1, w2):
    return torch.empty_like(dy), torch.empty_like(x), *(x.new_empty(s) for s in (w1.shape, w1.shape[:1], w2.shape))


def _keep_mlp(ctx, inputs, output):
    *tensors, b2 = inputs
    ctx.save_for_backward(*tensors)
    ctx.biases = tensors[2] is not None, b2 is not None


def _mlp_backward(ctx, dy):
    has_b1, has_b2 = ctx.biases
    dy = dy.contiguous()
    numbers = (1, *([2] if has_b1 else []), 2 + has_b1)  # w1, b1 and w2 among the arguments that are tensors
    weights = any(wanted(ctx, number) for number in numbers)
    dx, dw1, db1, dw2 = mlp_backward(dy, *ctx.saved_tensors, weights)
    db2 = dy.sum(0) if has_b2 and wanted(ctx, 3 + has_b1) else None
    return dx, *((dw1, db1 if has_b1 else None, dw2) if weights else (None, None, None)), db2


def _keep_mlp_backward(ctx, inputs, output):
    *tensors, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _mlp_backward_backward(ctx, a, *weights):
    if any(cotangent is not None for cotangent in weights):
        raise NotImplementedError("unstill::mlp: its gradients by the weights are not differentiable; use plain layers")
    if a is None:
        return (None,) * 6
    dy, x, w1, b1, w2 = ctx.saved_tensors
    g_dy, g_x, g_w1, g_b1, g_w2 = mlp_double_backward(a.contiguous(), dy, x, w1, b1, w2)
    return g_dy, g_x, g_w1, g_b1 if b1 is not None else None, g_w2, None


mlp_op.register_autograd(_mlp_backward, setup_context=_keep_mlp)
mlp_backward.register_autograd(_mlp_backward_backward, setup_context=_keep_mlp_backward)


@register_flop_formula(torch.ops.unstill.mlp)
def _(x, w1, b1, w2, b2, *, out_shape=None, **_kwargs):
    return product_flops(1, x, w1) + product_flops(1, x, w2)


@register_flop_formula(torch.ops.unstill.mlp_backward)
def _(dy, x, w1, b1, w2, weights, *, out_shape=None, **_kwargs):
    return product_flops(3 if weights else 2, x, w1) + product_flops(2 if weights else 1, x, w2)


@register_flop_formula(torch.ops.unstill.mlp_double_backward)
def _(a, dy, x, w1, b1, w2, *, out_shape=None, **_kwargs):
    return product_flops(5, x, w1) + product_flops(3, x, w2)

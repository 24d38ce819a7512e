"""gelu and the linear layer after it, closed under differentiation; ``mlp`` has the derivation.

    gelu_linear(h, w, b)    backward: dgrad(dy, h, w), wgrad(dy, h), sum of dy
    dgrad(dy, h, w)         backward: one op for all three, because they share p = dy w and q
    wgrad(dy, h)            backward: gelu_linear(h, e), dgrad(dy, h, e)

The result of gelu is made again from h where it is needed, so a plain first-order step keeps one tensor of the hidden
width less as well.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .autocast import as_autocast
from .forward_mode import refuse_forward_mode
from .gelu_derivatives import gelu_backward_into, gelu_into, second_order
from .inner_gradient import wanted
from .row_chunks import Total, Workspace, affine, chunks, product_flops


def gelu_linear(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear(F.gelu(h), weight, bias)`` that keeps ``h`` and, for a double backward, the gradient of the result.

    Args:
        h: (..., H) floating point.
        weight: (D, H). bias: (D,) or None.

    Returns:
        (..., D). Differentiable twice by everything; a third derivative raises.

    Raises:
        NotImplementedError: forward-mode differentiation.
    """
    refuse_forward_mode("gelu_linear", h, weight)
    h, weight, bias = as_autocast(h, weight, bias)
    y = gelu_linear_op(h.reshape(-1, h.shape[-1]).contiguous(), weight, bias)
    return y.view(*h.shape[:-1], -1)


# ------------------------------------------------------------------------------------------------- custom ops


@torch.library.custom_op("unstill::gelu_linear", mutates_args=())
def gelu_linear_op(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """h (M, H), weight (D, H), bias (D,) or None -> y (M, D)."""
    y = h.new_empty(h.shape[0], weight.shape[0])
    work = Workspace(len(h), h.shape[1], h)
    for rows in work:
        affine(gelu_into(h[rows], out=work["active"]), weight, bias, y[rows])
    return y


@torch.library.custom_op("unstill::gelu_linear_dgrad", mutates_args=())
def gelu_linear_dgrad(dy: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    """The gradient by h: dy (M, D), h (M, H), weight (D, H) -> (M, H)."""
    dh = torch.empty_like(h)
    for rows in chunks(len(h), h.shape[1], h):
        torch.mm(dy[rows], weight, out=dh[rows])
        gelu_backward_into(dh[rows], h[rows], grad_input=dh[rows])
    return dh


@torch.library.custom_op("unstill::gelu_linear_wgrad", mutates_args=())
def gelu_linear_wgrad(dy: Tensor, h: Tensor) -> Tensor:
    """The gradient by the weight: dy (M, D), h (M, H) -> (D, H)."""
    total = Total(h, dy.shape[1], h.shape[1])
    work = Workspace(len(h), h.shape[1], h)
    for rows in work:
        total.add_product(dy[rows], gelu_into(h[rows], out=work["active"]))
    return total.value()


@torch.library.custom_op("unstill::gelu_linear_dgrad_backward", mutates_args=())
def gelu_linear_dgrad_backward(a: Tensor, dy: Tensor, h: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cotangents of dy (M, D), h (M, H) and weight (D, H), for a (M, H) that of ``gelu_linear_dgrad``'s result."""
    g_dy, g_h, g_weight = torch.empty_like(dy), torch.empty_like(h), Total(h, *weight.shape)
    work = Workspace(len(h), h.shape[1], h)
    for rows in work:
        p = torch.mm(dy[rows], weight, out=work["p"])
        q, scratch = work["q"], None if h.is_cuda else work["scratch"]
        second_order(h[rows], p, a[rows], first=q, second=g_h[rows], by_p=None, scratch=scratch)
        torch.mm(q, weight.t(), out=g_dy[rows])
        g_weight.add_product(dy[rows], q)
    return g_dy, g_h, g_weight.value()


@gelu_linear_op.register_fake
def _(h, weight, bias):
    return h.new_empty(h.shape[0], weight.shape[0])


@gelu_linear_dgrad.register_fake
def _(dy, h, weight):
    return torch.empty_like(h)


@gelu_linear_wgrad.register_fake
def _(dy, h):
    return h.new_empty(dy.shape[1], h.shape[1])


@gelu_linear_dgrad_backward.register_fake
def _(a, dy, h, weight):
    return torch.empty_like(dy), torch.empty_like(h), weight.new_empty(weight.shape)


def _keep_tensors(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _gelu_linear_backward(ctx, dy):
    h, weight, bias = ctx.saved_tensors
    dy = dy.contiguous()
    return (
        gelu_linear_dgrad(dy, h, weight) if wanted(ctx, 0) else None,
        gelu_linear_wgrad(dy, h) if wanted(ctx, 1) else None,
        dy.sum(0) if bias is not None and wanted(ctx, 2) else None,
    )


def _dgrad_backward(ctx, a):
    dy, h, weight = ctx.saved_tensors
    return gelu_linear_dgrad_backward(a.contiguous(), dy, h, weight)


def _wgrad_backward(ctx, e):
    dy, h = ctx.saved_tensors
    return (
        gelu_linear_op(h, e, None) if wanted(ctx, 0) else None,
        gelu_linear_dgrad(dy, h, e) if wanted(ctx, 1) else None,
    )


gelu_linear_op.register_autograd(_gelu_linear_backward, setup_context=_keep_tensors)
gelu_linear_dgrad.register_autograd(_dgrad_backward, setup_context=_keep_tensors)
gelu_linear_wgrad.register_autograd(_wgrad_backward, setup_context=_keep_tensors)


@register_flop_formula(torch.ops.unstill.gelu_linear)
def _(h, weight, bias, *, out_shape=None, **_kwargs):
    return product_flops(1, h, weight)


@register_flop_formula(torch.ops.unstill.gelu_linear_dgrad)
def _(dy, h, weight, *, out_shape=None, **_kwargs):
    return product_flops(1, h, weight)


@register_flop_formula(torch.ops.unstill.gelu_linear_wgrad)
def _(dy, h, *, out_shape=None, **_kwargs):
    return product_flops(1, h, (dy[1], h[1]))


@register_flop_formula(torch.ops.unstill.gelu_linear_dgrad_backward)
def _(a, dy, h, weight, *, out_shape=None, **_kwargs):
    return product_flops(3, h, weight)

"""The three custom ops of the attention and how each is differentiated."""

import torch

from ..inner_gradient import wanted
from .layout import accumulator, empty_like_tokens
from .torch_form import attention_backward_torch, attention_double_backward_torch, attention_torch
from .triton_form import (
    attention_backward_triton,
    attention_double_backward_triton,
    attention_triton,
    empty_statistic,
)

LARGEST_FUSED_HEAD = 128


def is_fused(q: torch.Tensor) -> bool:
    """Whether Triton computes the op. The plain torch form serves CPUs, on GPUs float32, float64 and large heads."""
    return q.is_cuda and has_fused_form(q)


def has_fused_form(q: torch.Tensor) -> bool:
    """Whether Triton would compute it on a GPU."""
    return q.dtype.itemsize == 2 and q.shape[-1] <= LARGEST_FUSED_HEAD


def _empty_statistic(q):
    return empty_statistic(q) if is_fused(q) else q.new_empty(0, dtype=accumulator(q))


def _empty_bias(q, bias, need_bias):
    return bias.new_empty(bias.shape) if need_bias else q.new_empty(0)


def _attention_cuda(q, k, v, bias, regions, scale):
    form = attention_triton if is_fused(q) else attention_torch
    return form(q, k, v, bias, regions, scale)


def _backward_cuda(do, q, *others):
    form = attention_backward_triton if is_fused(q) else attention_backward_torch
    return form(do, q, *others)


def _double_backward_cuda(a, *others):
    form = attention_double_backward_triton if is_fused(a) else attention_double_backward_torch
    return form(a, *others)


attention_op = torch.library.custom_op("unstill::attention", attention_torch, mutates_args=(), device_types="cpu")
attention_op.register_kernel("cuda")(_attention_cuda)

backward_op = torch.library.custom_op(
    "unstill::attention_backward", attention_backward_torch, mutates_args=(), device_types="cpu"
)
backward_op.register_kernel("cuda")(_backward_cuda)

double_backward_op = torch.library.custom_op(
    "unstill::attention_double_backward", attention_double_backward_torch, mutates_args=(), device_types="cpu"
)
double_backward_op.register_kernel("cuda")(_double_backward_cuda)


@attention_op.register_fake
def _(q, k, v, bias, regions, scale):
    return empty_like_tokens(q), _empty_statistic(q)


@backward_op.register_fake
def _(do, q, k, v, bias, regions, out, lse, scale, need_bias):
    gradients = (empty_like_tokens(q), empty_like_tokens(k), empty_like_tokens(v), _empty_bias(q, bias, need_bias))
    return *gradients, _empty_statistic(q)


@double_backward_op.register_fake
def _(a, b, c, e, do, q, k, v, bias, regions, out, lse, delta, scale, need_bias):
    gradients = (empty_like_tokens(do), empty_like_tokens(q), empty_like_tokens(k), empty_like_tokens(v))
    return *gradients, _empty_bias(q, bias, need_bias)


# O, lse and delta are functions of the inputs, but the closed derivatives count that already: they are saved detached,
# and nothing flows back to them. The plain torch form recomputes them, so there they are not saved.

BIAS = 3  # its position among the tensor arguments of the forward; in the backward dO comes first


def _save(ctx, inputs, output):
    q, k, v, bias, regions, ctx.scale = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, bias, regions, *((out, lse) if is_fused(q) else (None, None)))


def _backward(ctx, do, _):
    q, k, v, bias, regions, out, lse = ctx.saved_tensors
    need_bias = bias is not None and wanted(ctx, BIAS)
    if out is not None:
        out, lse = out.detach(), lse.detach()
    g_q, g_k, g_v, g_bias, _ = backward_op(do, q, k, v, bias, regions, out, lse, ctx.scale, need_bias)
    return g_q, g_k, g_v, g_bias if need_bias else None, None, None


def _save_backward(ctx, inputs, output):
    do, q, k, v, bias, regions, out, lse, ctx.scale, ctx.with_bias = inputs
    delta = output[4]
    ctx.mark_non_differentiable(delta)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(do, q, k, v, bias, regions, out, lse, delta if is_fused(q) else None)


def _double_backward(ctx, a, b, c, e, _):
    do, q, k, v, bias, regions, out, lse, delta = ctx.saved_tensors
    a, b, c = (torch.zeros_like(of) if x is None else x for x, of in ((a, q), (b, k), (c, v)))
    e = e if ctx.with_bias else None
    need_bias = bias is not None and wanted(ctx, 1 + BIAS)
    inputs = (a, b, c, e, do, q, k, v, bias, regions, out, lse, delta, ctx.scale, need_bias)
    *gradients, g_bias = double_backward_op(*inputs)
    return *gradients, g_bias if need_bias else None, *(None,) * 5


attention_op.register_autograd(_backward, setup_context=_save)
backward_op.register_autograd(_double_backward, setup_context=_save_backward)

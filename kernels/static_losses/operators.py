"""The losses as custom ops with backwards that are custom ops, too: Triton on CUDA, plain torch elsewhere."""

import torch

from .torch_form import (
    allocate_losses,
    static_losses_backward_torch,
    static_losses_torch,
    weighted_losses_backward_torch,
    weighted_losses_torch,
)
from .triton_form import (
    static_losses_backward_triton,
    static_losses_triton,
    weighted_losses_backward_triton,
    weighted_losses_triton,
)

static_losses_op = torch.library.custom_op(
    "unstill::static_losses", static_losses_torch, mutates_args=(), device_types="cpu"
)
static_losses_op.register_kernel("cuda")(static_losses_triton)


@static_losses_op.register_fake
def _(logits, target, n_motion, label_smoothing, ignore_index):
    return allocate_losses(logits)


static_losses_backward_op = torch.library.custom_op(
    "unstill::static_losses_backward", static_losses_backward_torch, mutates_args=(), device_types="cpu"
)
static_losses_backward_op.register_kernel("cuda")(static_losses_backward_triton)


@static_losses_backward_op.register_fake
def _(g_ce, g_negent, logits, target, negent, stats, n_motion, label_smoothing, ignore_index):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output):
    logits, target, ctx.n_motion, ctx.label_smoothing, ctx.ignore_index = inputs
    _, negent, lse, stats = output
    ctx.mark_non_differentiable(lse, stats)
    ctx.save_for_backward(logits, target, negent, stats)


def _backward(ctx, g_ce, g_negent, _g_lse, _g_stats):
    options = (ctx.n_motion, ctx.label_smoothing, ctx.ignore_index)
    return static_losses_backward_op(g_ce, g_negent, *ctx.saved_tensors, *options), None, None, None, None


static_losses_op.register_autograd(_backward, setup_context=_save)


weighted_losses_op = torch.library.custom_op(
    "unstill::weighted_losses", weighted_losses_torch, mutates_args=(), device_types="cpu"
)
weighted_losses_op.register_kernel("cuda")(weighted_losses_triton)


@weighted_losses_op.register_fake
def _(logits, target, n_motion, ce_weight, negent_weight, label_smoothing, ignore_index):
    ce, *others = allocate_losses(logits)
    return torch.empty_like(ce), ce, *others


weighted_losses_backward_op = torch.library.custom_op(
    "unstill::weighted_losses_backward", weighted_losses_backward_torch, mutates_args=(), device_types="cpu"
)
weighted_losses_backward_op.register_kernel("cuda")(weighted_losses_backward_triton)


@weighted_losses_backward_op.register_fake
def _(g_rows, ce_weight, negent_weight, logits, target, negent, stats, n_motion, label_smoothing, ignore_index):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save_weighted(ctx, inputs, output):
    logits, target, ctx.n_motion, ce_weight, negent_weight, ctx.label_smoothing, ctx.ignore_index = inputs
    _, ce, negent, lse, stats = output
    ctx.mark_non_differentiable(ce, negent, lse, stats)
    ctx.save_for_backward(ce_weight, negent_weight, logits, target, negent, stats)


def _weighted_backward(ctx, g_rows, *_):
    options = (ctx.n_motion, ctx.label_smoothing, ctx.ignore_index)
    return weighted_losses_backward_op(g_rows, *ctx.saved_tensors, *options), *(None,) * 6


weighted_losses_op.register_autograd(_weighted_backward, setup_context=_save_weighted)

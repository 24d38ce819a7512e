"""The losses as a custom op with a backward that is a custom op, too: Triton on CUDA, plain torch elsewhere."""

import torch

from .torch_form import allocate_losses, static_losses_backward_torch, static_losses_torch
from .triton_form import static_losses_backward_triton, static_losses_triton

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

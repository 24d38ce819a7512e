"""The boundary between two steps in one launch: losses and logit gradients of step i, clips of step i + 1.

The rows of logits are latency-bound and few, the clips are bandwidth-bound and many, so the losses ride under the
clips. Results equal those of ``clip_prep`` and ``static_losses`` apart to the bit. What it costs: the frames of step
i + 1 must be on the device before the backward of step i, and their clips are alive at its activation peak.
"""

# pyright: reportArgumentType=false
# Triton types a launch as a call of the kernel, whose compile-time arguments (tl.constexpr) are plain numbers there.

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .clip_prep import Layout, Static, check_clip_arguments, check_clip_values
from .clip_prep.torch_form import allocate_clips, clip_prep_torch, split_clips
from .clip_prep.triton_form import UNSPECIALISED, clip_launch, clip_prep_triton, clip_tile
from .forward_mode import refuse_forward_mode
from .launch_configs import LAUNCH, on_device_of
from .static_losses import check_labels, check_loss_arguments, check_weights
from .static_losses.torch_form import (
    allocate_losses,
    row_loss,
    static_losses_backward_torch,
    static_losses_torch,
)
from .static_losses.triton_form import (
    UNSPECIALISED_ROWS,
    row_gradient,
    row_label,
    row_launch,
    row_losses,
    store_losses,
    weighted_row,
)


class StepBoundary(NamedTuple):
    """The end of one step and the start of the next."""

    loss: Tensor
    """0-dim: sum(ce_weight * ce + negent_weight * negent) of this step; the differentiable output."""
    ce: Tensor
    """(R,) cross-entropy of this step's rows."""
    negent: Tensor
    """(R,) negative entropy of this step's rows."""
    lse: Tensor
    """(R,) log-sum-exp of this step's rows."""
    motion: Tensor
    """(B, 3, T, h, w) motion clips of the next step; with ``joint`` (2B, 3, T, h, w), motion and static clips."""
    static: Tensor | None
    """Static clips of the next step, as ``clip_prep`` returns them."""


def step_boundary(
    logits: Tensor,
    target: Tensor,
    n_motion: int,
    ce_weight: Tensor,
    negent_weight: Tensor,
    frames: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int] | None = None,
    top: Tensor | None = None,
    left: Tensor | None = None,
    flip: Tensor | None = None,
    t_idx: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    layout: Layout = "ncdhw",
    static: Static = "none",
    joint: bool = False,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    validate: bool = False,
) -> StepBoundary:
    """``static_losses`` and its backward on this step's logits, ``clip_prep`` on the next step's frames: one launch.

    Equal to the bit to ``weighted_loss(ce, negent, ce_weight, negent_weight)`` of ``static_losses``, its gradient, and
    ``clip_prep``. The gradient is computed here for an incoming gradient of one; the backward only scales it, so it is
    differentiable once, with respect to the logits.

    Args:
        logits, target, n_motion, label_smoothing, ignore_index: as in ``static_losses``.
        ce_weight, negent_weight: (R,) in the dtype of the losses; what each row's ce and negent count in the loss.
            They are tensors, so that a schedule never recompiles. A weight of zero switches its term off.
        frames and the other options: as in ``clip_prep``.

    Raises:
        TypeError, ValueError: as in the two functions. NotImplementedError: forward-mode differentiation.
    """
    check_loss_arguments(logits, target, n_motion, label_smoothing)
    check_weights("step_boundary", logits, ce_weight, negent_weight)
    if frames.device != logits.device:
        raise ValueError(f"step_boundary: the frames are on {frames.device}, the logits on {logits.device}")
    clip_size = check_clip_arguments(frames, mean, std, size, top, left, flip, t_idx, dtype, layout, static, joint)
    refuse_forward_mode("step_boundary", logits)
    if validate:
        check_labels(logits, target, ignore_index)
        check_clip_values(frames, clip_size, top, left, t_idx)
    rows, ce, negent, lse, _, motion, still = step_boundary_op(
        *(logits, target, n_motion, ce_weight, negent_weight, float(label_smoothing), ignore_index),
        *(frames, top, left, flip, t_idx, clip_size, list(mean), list(std)),
        *(dtype, layout == "channels_last_3d", static, joint),
    )
    return StepBoundary(rows.sum(), ce, negent, lse, motion, still if static != "none" and not joint else None)


def step_boundary_torch(
    logits: Tensor,
    target: Tensor,
    n_motion: int,
    ce_weight: Tensor,
    negent_weight: Tensor,
    label_smoothing: float,
    ignore_index: int,
    frames: Tensor,
    top: Tensor | None,
    left: Tensor | None,
    flip: Tensor | None,
    t_idx: Tensor | None,
    size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels_last: bool,
    static: str,
    joint: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The CPU form: row losses (R,), ce, negent, lse, the row losses' gradient (R, C), motion or joint clips, static.

    Its signature is the operator's."""
    options = (n_motion, label_smoothing, ignore_index)
    ce, negent, lse, stats = static_losses_torch(logits, target, *options)
    gradient = static_losses_backward_torch(ce_weight, negent_weight, logits, target, negent, stats, *options)
    clips = clip_prep_torch(frames, top, left, flip, t_idx, size, mean, std, dtype, channels_last, static, joint)
    return row_loss(ce, negent, ce_weight, negent_weight), ce, negent, lse, gradient, *clips


@triton.jit(do_not_specialize=(*UNSPECIALISED, *UNSPECIALISED_ROWS, "gradient_row", "n_rows"))
def step_boundary_kernel(
    # losses of this step
    logits, logits_row, target, target_row, n_motion, ignore_index, smoothing, ces, negents, lses, stats,
    ce_weights, negent_weights, weighted, gradient, gradient_row, n_rows,
    # clips of the next step
    frames, frames_b, frames_t, frames_y, motion, motion_b, still, still_b, top, left, flip, t_idx,
    last_top, last_left, scale0, scale1, scale2, bias0, bias1, bias2,
    C: tl.constexpr, SOFT: tl.constexpr, SMOOTH: tl.constexpr, BLOCK_C: tl.constexpr,
    T: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, STATIC_FRAMES: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr, BLOCK_T: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if program < n_rows:  # low numbers start first: the rows, each a chain of waiting, run under the clips
        row64 = program.to(tl.int64)
        own = logits + row64 * logits_row
        ce_weight = tl.load(ce_weights + program)
        negent_weight = tl.load(negent_weights + program)
        distribution, label, ignored, wrong = row_label(target, target_row, program, n_motion, ignore_index, C, SOFT)
        ce, negent, row_top, log_total, mass = row_losses(
            own, distribution, label, ignored, wrong, smoothing, C, SOFT, SMOOTH, BLOCK_C
        )
        store_losses(program, ce, negent, row_top, log_total, mass, ces, negents, lses, stats)
        tl.store(weighted + program, weighted_row(ce, negent, ce_weight, negent_weight))
        for start in range(0, C, BLOCK_C):
            row_gradient(
                start, own, gradient + row64 * gradient_row, distribution, label, ignored, wrong,
                ce_weight, negent_weight, row_top, log_total, mass, negent, smoothing, C, SOFT, SMOOTH, BLOCK_C,
            )  # fmt: skip
    else:
        clip_tile(
            program - n_rows, frames, frames_b, frames_t, frames_y, motion, motion_b, still, still_b,
            top, left, flip, t_idx, last_top, last_left, scale0, scale1, scale2, bias0, bias1, bias2,
            T, HEIGHT, WIDTH, STATIC_FRAMES, CHANNELS_LAST, BLOCK, BLOCK_T, VEC,
        )  # fmt: skip


def step_boundary_triton(
    logits, target, n_motion, ce_weight, negent_weight, label_smoothing, ignore_index,
    frames, top, left, flip, t_idx, size, mean, std, dtype, channels_last, static, joint,
):  # fmt: skip
    """The CUDA form; on CPU tensors only under Triton's interpreter."""
    if logits.dtype == torch.float64:  # for tests; the kernels compute in float32
        options = (n_motion, label_smoothing, ignore_index)
        ce, negent, lse, stats = static_losses_torch(logits, target, *options)
        gradient = static_losses_backward_torch(ce_weight, negent_weight, logits, target, negent, stats, *options)
        clips = clip_prep_triton(frames, top, left, flip, t_idx, size, mean, std, dtype, channels_last, static, joint)
        return row_loss(ce, negent, ce_weight, negent_weight), ce, negent, lse, gradient, *clips
    rows = logits.shape[0]
    losses = allocate_losses(logits)
    weighted = torch.empty_like(losses[0])
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    buffer, still = allocate_clips(frames, size, dtype, channels_last, static, joint)
    motion, stills = split_clips(buffer, still, frames.shape[0], static, joint)
    row_arguments, row_meta = row_launch(logits, target, n_motion, label_smoothing, ignore_index)
    programs, clip_arguments, clip_meta = clip_launch(frames, top, left, flip, t_idx, size, mean, std, motion, stills)
    weights = (ce_weight.contiguous(), negent_weight.contiguous())
    with on_device_of(logits):
        step_boundary_kernel[(rows + programs,)](
            *(*row_arguments, *losses, *weights, weighted, gradient, gradient.stride(0), rows, *clip_arguments),
            **(row_meta | clip_meta | LAUNCH),
        )
    return weighted, *losses[:3], gradient, buffer, still


step_boundary_op = torch.library.custom_op(
    "unstill::step_boundary", step_boundary_torch, mutates_args=(), device_types="cpu"
)
step_boundary_op.register_kernel("cuda")(step_boundary_triton)


@step_boundary_op.register_fake
def _(
    logits, target, n_motion, ce_weight, negent_weight, label_smoothing, ignore_index,
    frames, top, left, flip, t_idx, size, mean, std, dtype, channels_last, static, joint,
):  # fmt: skip
    ce, negent, lse, _ = allocate_losses(logits)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    clips = allocate_clips(frames, size, dtype, channels_last, static, joint)
    return torch.empty_like(ce), ce, negent, lse, gradient, *clips


def _save(ctx, inputs, output):
    _, *others = output
    ctx.mark_non_differentiable(*others)
    ctx.save_for_backward(others[3])


def _backward(ctx, g_rows, *_):
    (gradient,) = ctx.saved_tensors
    return (gradient * g_rows[:, None]).to(gradient.dtype), *(None,) * 18


step_boundary_op.register_autograd(_backward, setup_context=_save)

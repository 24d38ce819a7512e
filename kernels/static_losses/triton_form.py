"""The losses and their gradient in Triton, one program a row of logits.

max() loses NaN on a GPU and keeps it in the interpreter, so nothing may depend on it: a NaN logit travels through the
sum of exponentials, from there into its logarithm, and through that into every result of its row.

Sums must be added in the same order in every kernel. The order follows from how Triton lays a tile out over threads,
which follows from the alignment it can prove and from other tiles of the same shape in the kernel. So tiles of a row
have two dimensions (tiles of clips have one), and no stride is specialised: nothing is ever known of the alignment.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false
# Triton types a launch as a call of the kernel, whose compile-time arguments (tl.constexpr) are plain numbers there;
# and a reduction as something that may be a tuple.

import torch
import triton
import triton.language as tl

from ..launch_configs import LAUNCH, NUM_WARPS, on_device_of, row_block_for
from .torch_form import (
    allocate_losses,
    static_losses_backward_torch,
    static_losses_torch,
    weighted_losses_backward_torch,
    weighted_losses_torch,
)

LANES = tl.constexpr(32 * NUM_WARPS)
UNSPECIALISED_ROWS = ("logits_row", "target_row", "n_motion", "ignore_index")


@triton.jit
def tile_columns(start, BLOCK_C: tl.constexpr):
    """(BLOCK_C / LANES, LANES) column numbers from ``start``: neighbours in neighbouring threads."""
    return start + tl.arange(0, BLOCK_C // LANES)[:, None] * LANES + tl.arange(0, LANES)[None, :]


@triton.jit
def add_each(a0, a1, a2, a3, b0, b1, b2, b3):
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3


@triton.jit
def totals_of(a, b, c, d):
    """The sums of four tiles, in one exchange between the warps: two barriers instead of eight."""
    rows = (tl.sum(a, axis=0), tl.sum(b, axis=0), tl.sum(c, axis=0), tl.sum(d, axis=0))
    return tl.reduce(rows, 0, add_each)


@triton.jit
def row_label(target, target_row, row, n_motion, ignore_index, C: tl.constexpr, SOFT: tl.constexpr):
    """(pointer to the row's distribution, label or -1, ignored, wrong)."""
    own = tl.where(row >= n_motion, row - n_motion, row).to(tl.int64) * target_row
    if SOFT:
        return target + own, -1, False, False
    else:
        label = tl.load(target + own).to(tl.int64)
        ignored = label == ignore_index
        wrong = ((label < 0) | (label >= C)) & (label != ignore_index)
        return target, tl.where(ignored | wrong, -1, label).to(tl.int32), ignored, wrong


@triton.jit
def target_mass(
    distribution, columns, valid, label, smoothing, C: tl.constexpr, SOFT: tl.constexpr, SMOOTH: tl.constexpr
):
    """q of some columns; zero outside the row."""
    if SOFT:
        q = tl.load(distribution + columns, mask=valid, other=0.0).to(tl.float32)
    else:
        q = tl.where(columns == label, 1.0, 0.0)
    if SMOOTH:
        q = tl.where(valid, q * (1.0 - smoothing) + smoothing / C, 0.0)
    return q


@triton.jit
def row_losses(
    logits, distribution, label, ignored, wrong, smoothing,
    C: tl.constexpr, SOFT: tl.constexpr, SMOOTH: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """(ce, negent, max, log sum exp(z - max), sum(q)) of the row at ``logits``, read once.

    Every lane keeps the sums of its own columns relative to its own maximum (online softmax, Milakov & Gimelshein 2018,
    with the entropy's sum (z - max) exp(z - max) and the target's sum q (z - max) besides); they are combined once at
    the end, so the loop has no reduction and no barrier. Relative to the maximum, sums keep their digits under large
    logits.
    """
    ninf: tl.constexpr = float("-inf")  # type: ignore[reportAssignmentType]  (Triton makes it a constexpr)
    top = tl.full((BLOCK_C // LANES, LANES), ninf, tl.float32)
    total = tl.zeros((BLOCK_C // LANES, LANES), tl.float32)
    weighted = tl.zeros((BLOCK_C // LANES, LANES), tl.float32)
    mass = tl.zeros((BLOCK_C // LANES, LANES), tl.float32)
    against = tl.zeros((BLOCK_C // LANES, LANES), tl.float32)
    for start in range(0, C, BLOCK_C):
        columns = tile_columns(start, BLOCK_C)
        valid = columns < C
        z = tl.load(logits + columns, mask=valid, other=ninf).to(tl.float32)
        q = target_mass(distribution, columns, valid, label, smoothing, C, SOFT, SMOOTH)
        higher = tl.maximum(top, z)
        gap = tl.where(top == ninf, 0.0, top - higher)  # a lane that has seen only -inf has nothing to rescale
        decay = tl.exp(gap)
        dead = z == ninf
        below = tl.where(dead, 0.0, z - higher)
        e = tl.where(dead, 0.0, tl.exp(below))
        weighted = decay * (weighted + gap * total) + e * below
        total = decay * total + e
        against += gap * mass + tl.where(q == 0.0, 0.0, q * tl.where(dead, ninf, below))
        mass += q
        top = higher
    row_top = tl.max(tl.max(top, axis=0), axis=0)
    gap = tl.where(top == ninf, 0.0, top - row_top)
    decay = tl.exp(gap)
    row_total, row_weighted, row_against, row_mass = totals_of(
        decay * total, decay * (weighted + gap * total), against + gap * mass, mass
    )
    log_total = tl.log(row_total)
    negent = row_weighted / row_total - log_total
    ce = row_mass * log_total - row_against
    ce = tl.where(wrong, float("nan"), tl.where(ignored, 0.0, ce))
    return ce, negent, row_top, log_total, row_mass


@triton.jit
def row_gradient(
    start, logits, gradient, distribution, label, ignored, wrong, ce_weight, negent_weight,
    top, log_total, mass, negent, smoothing,
    C: tl.constexpr, SOFT: tl.constexpr, SMOOTH: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Store ce_weight * dce/dz + negent_weight * dnegent/dz of ``BLOCK_C`` columns from ``start``."""
    columns = tile_columns(start, BLOCK_C)
    valid = columns < C
    z = tl.load(logits + columns, mask=valid, other=float("-inf")).to(tl.float32)
    q = target_mass(distribution, columns, valid, label, smoothing, C, SOFT, SMOOTH)
    log_p = z - top - log_total
    p = tl.exp(log_p)
    from_ce = tl.where(wrong, float("nan"), ce_weight * (p * mass - q))
    from_ce = tl.where(ce_weight == 0.0, 0.0, tl.where(ignored, 0.0, from_ce))
    from_negent = tl.where(p == 0.0, 0.0, negent_weight * p * (log_p - negent))
    from_negent = tl.where(negent_weight == 0.0, 0.0, from_negent)
    tl.store(gradient + columns, (from_ce + from_negent).to(gradient.dtype.element_ty), mask=valid)


@triton.jit
def store_losses(row, ce, negent, top, log_total, mass, ces, negents, lses, stats):
    tl.store(ces + row, ce)
    tl.store(negents + row, negent)
    tl.store(lses + row, top + log_total)
    tl.store(stats + row * 3, top)
    tl.store(stats + row * 3 + 1, log_total)
    tl.store(stats + row * 3 + 2, mass)


@triton.jit
def weighted_row(ce, negent, ce_weight, negent_weight):
    """What a row adds to the loss; a weight of zero switches its term off, NaN included."""
    from_ce = tl.where(ce_weight == 0.0, 0.0, ce_weight * ce)
    return from_ce + tl.where(negent_weight == 0.0, 0.0, negent_weight * negent)


@triton.jit(do_not_specialize=UNSPECIALISED_ROWS)
def static_losses_kernel(
    logits, logits_row, target, target_row, n_motion, ignore_index, smoothing, ces, negents, lses, stats,
    ce_weights, negent_weights, weighted,
    C: tl.constexpr, SOFT: tl.constexpr, SMOOTH: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One row a program; ``weighted`` (R,) and the weights are None where no weighted sum is wanted."""
    row = tl.program_id(0)
    # before the sums, so that nothing waits for these loads
    ce_weight = 0.0 if weighted is None else tl.load(ce_weights + row)
    negent_weight = 0.0 if weighted is None else tl.load(negent_weights + row)
    own = logits + row.to(tl.int64) * logits_row
    distribution, label, ignored, wrong = row_label(target, target_row, row, n_motion, ignore_index, C, SOFT)
    ce, negent, top, log_total, mass = row_losses(
        own, distribution, label, ignored, wrong, smoothing, C, SOFT, SMOOTH, BLOCK_C
    )
    store_losses(row, ce, negent, top, log_total, mass, ces, negents, lses, stats)
    if weighted is not None:
        tl.store(weighted + row, weighted_row(ce, negent, ce_weight, negent_weight))


@triton.jit(do_not_specialize=(*UNSPECIALISED_ROWS, "gradient_row", "g_row"))
def static_losses_backward_kernel(
    g_ce, g_negent, g_rows, g_row, logits, logits_row, target, target_row, n_motion, ignore_index, smoothing,
    negents, stats, gradient, gradient_row,
    C: tl.constexpr, SOFT: tl.constexpr, SMOOTH: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """One tile of a row a program. ``g_rows`` (stride ``g_row``) multiplies both incoming gradients, unless None."""
    row = tl.program_id(0)
    row64 = row.to(tl.int64)
    of_ce = tl.load(g_ce + row)
    of_negent = tl.load(g_negent + row)
    if g_rows is not None:
        incoming = tl.load(g_rows + row64 * g_row)
        of_ce = tl.where(of_ce == 0.0, 0.0, of_ce * incoming)
        of_negent = tl.where(of_negent == 0.0, 0.0, of_negent * incoming)
    distribution, label, ignored, wrong = row_label(target, target_row, row, n_motion, ignore_index, C, SOFT)
    row_gradient(
        tl.program_id(1) * BLOCK_C, logits + row64 * logits_row, gradient + row64 * gradient_row,
        distribution, label, ignored, wrong, of_ce, of_negent,
        tl.load(stats + row * 3), tl.load(stats + row * 3 + 1), tl.load(stats + row * 3 + 2), tl.load(negents + row),
        smoothing, C, SOFT, SMOOTH, BLOCK_C,
    )  # fmt: skip


def row_launch(logits, target, n_motion, label_smoothing, ignore_index):
    """(run-time arguments, constexpr arguments) that all kernels with rows share."""
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    soft = target.is_floating_point()
    if soft and target.stride(1) != 1:
        target = target.contiguous()
    classes = logits.shape[1]
    arguments = (logits, logits.stride(0), target, target.stride(0), n_motion, ignore_index, label_smoothing)
    return arguments, dict(C=classes, SOFT=soft, SMOOTH=label_smoothing > 0, BLOCK_C=row_block_for(classes))


def static_losses_triton(logits, target, n_motion, label_smoothing, ignore_index):
    """The CUDA form of the forward; on CPU tensors only under Triton's interpreter."""
    if logits.dtype == torch.float64:  # for tests; the kernels compute in float32
        return static_losses_torch(logits, target, n_motion, label_smoothing, ignore_index)
    losses = allocate_losses(logits)
    arguments, meta = row_launch(logits, target, n_motion, label_smoothing, ignore_index)
    with on_device_of(logits):
        static_losses_kernel[(logits.shape[0],)](*arguments, *losses, None, None, None, **meta, **LAUNCH)
    return losses


def weighted_losses_triton(logits, target, n_motion, ce_weight, negent_weight, label_smoothing, ignore_index):
    """The CUDA form of the forward with weights; on CPU tensors only under Triton's interpreter."""
    options = (label_smoothing, ignore_index)
    if logits.dtype == torch.float64:
        return weighted_losses_torch(logits, target, n_motion, ce_weight, negent_weight, *options)
    losses = allocate_losses(logits)
    weighted = torch.empty_like(losses[0])
    arguments, meta = row_launch(logits, target, n_motion, *options)
    weights = (ce_weight.contiguous(), negent_weight.contiguous())
    with on_device_of(logits):
        static_losses_kernel[(logits.shape[0],)](*arguments, *losses, *weights, weighted, **meta, **LAUNCH)
    return weighted, *losses


def static_losses_backward_triton(
    g_ce, g_negent, logits, target, negent, stats, n_motion, label_smoothing, ignore_index
):
    """The CUDA form of the gradient; on CPU tensors only under Triton's interpreter."""
    options = (n_motion, label_smoothing, ignore_index)
    if logits.dtype == torch.float64:
        return static_losses_backward_torch(g_ce, g_negent, logits, target, negent, stats, *options)
    # the gradient of a sum or a mean arrives expanded, with stride 0
    g_ce, g_negent = g_ce.contiguous(), g_negent.contiguous()
    return launch_backward(g_ce, g_negent, None, logits, target, negent, stats, options)


def weighted_losses_backward_triton(
    g_rows, ce_weight, negent_weight, logits, target, negent, stats, n_motion, label_smoothing, ignore_index
):
    """The CUDA form of the gradient of the weighted rows; on CPU tensors only under Triton's interpreter."""
    options = (n_motion, label_smoothing, ignore_index)
    if logits.dtype == torch.float64:
        return weighted_losses_backward_torch(g_rows, ce_weight, negent_weight, logits, target, negent, stats, *options)
    weights = (ce_weight.contiguous(), negent_weight.contiguous())
    return launch_backward(*weights, g_rows, logits, target, negent, stats, options)


def launch_backward(g_ce, g_negent, g_rows, logits, target, negent, stats, options):
    """The gradient (R, C): contiguous ``g_ce`` and ``g_negent``, both times ``g_rows`` of any stride unless None."""
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    arguments, meta = row_launch(logits, target, *options)
    grid = (logits.shape[0], triton.cdiv(meta["C"], meta["BLOCK_C"]))
    g_row = 0 if g_rows is None else g_rows.stride(0)
    with on_device_of(logits):
        static_losses_backward_kernel[grid](
            *(g_ce, g_negent, g_rows, g_row, *arguments, negent, stats, gradient, gradient.stride(0)),
            **meta,
            **LAUNCH,
        )
    return gradient

"""Cross-entropy and negative entropy of the rows of [motion; static] logits, in one pass over them.

With p = softmax(z) of one row of C logits and a target distribution q (one-hot, soft, or smoothed):

    ce     = -sum_c q_c log p_c            d ce / dz_c     = p_c sum(q) - q_c
    negent =  sum_c p_c log p_c            d negent / dz_c = p_c (log p_c - negent)

These are the terms of ALBAR (adversarial learning on static clips, ICLR 2025): the encoder minimises ``ce`` of the
motion rows, maximises ``ce`` of the static rows and minimises their ``negent`` (towards a uniform prediction).

What is defined for inputs that are not ordinary numbers:

* a logit of -inf has p = 0 and adds nothing to ``negent``; ``q_c == 0`` adds nothing to ``ce``, at -inf either;
* NaN, +inf, or nothing but -inf in a row: that row is NaN in ``ce``, ``negent`` and gradient, the others untouched;
* a label outside [0, C) gives NaN in its row (no check that waits for the device); ``ignore_index`` gives ce = 0 with
  zero gradient, and its entropy still counts;
* an incoming gradient of exactly zero switches its term off, NaN included.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false
# Triton types a launch as a call of the kernel, whose compile-time arguments (tl.constexpr) are plain numbers there;
# and a reduction as something that may be a tuple.

import torch
import triton
import triton.language as tl
from torch import Tensor

from .forward_mode import refuse_forward_mode
from .launch_configs import LAUNCH, NUM_WARPS, on_device_of, row_block_for


def static_losses(
    logits: Tensor,
    target: Tensor,
    n_motion: int,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    *,
    validate: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Per-row cross-entropy, negative entropy (sum p log p) and log-sum-exp.

    Args:
        logits: (R, C) floating point, C >= 2; rows [0, n_motion) are motion clips, the others static clips.
        target: labels (B,) of an integer dtype, or distributions (B, C) of a floating dtype, with
            B = max(n_motion, R - n_motion). Row r uses target r, or r - n_motion if it is static.
        n_motion: number of motion rows, 0..R.
        label_smoothing: in [0, 1]: q becomes (1 - s) q + s / C.
        ignore_index: the label whose rows have no cross-entropy.
        validate: raise for labels outside [0, C). Waits for the device; not for use under torch.compile.

    Returns:
        ce (R,), negent (R,), lse (R,), float32 (float64 for float64 logits), in nats. ``ce`` and ``negent`` are
        differentiable once with respect to the logits, ``lse`` is not.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or option. NotImplementedError: forward-mode differentiation.
    """
    check_loss_arguments(logits, target, n_motion, label_smoothing)
    refuse_forward_mode("static_losses", logits)
    if validate:
        check_labels(logits, target, ignore_index)
    ce, negent, lse, _ = static_losses_op(logits, target, n_motion, float(label_smoothing), ignore_index)
    return ce, negent, lse


def weighted_loss(ce: Tensor, negent: Tensor, ce_weight: Tensor, negent_weight: Tensor) -> Tensor:
    """sum(ce_weight * ce + negent_weight * negent), 0-dim; a weight of zero switches its term off, even when it is NaN.

    With weights 1/Bm on the motion rows' ce, -w_adv/Bs on the static rows' ce and w_ent/Bs on their negent this is
    ALBAR's loss without its gradient penalty. All arguments are (R,).
    """
    return row_loss(ce, negent, ce_weight, negent_weight).sum()


def row_loss(ce: Tensor, negent: Tensor, ce_weight: Tensor, negent_weight: Tensor) -> Tensor:
    """The terms of ``weighted_loss``, (R,)."""
    from_ce = torch.where(ce_weight == 0, 0.0, ce_weight * ce)
    return from_ce + torch.where(negent_weight == 0, 0.0, negent_weight * negent)


def check_loss_arguments(logits: Tensor, target: Tensor, n_motion: int, label_smoothing: float) -> None:
    """Everything that can be checked without reading the device."""
    if not logits.is_floating_point():
        raise TypeError(f"static_losses: logits must be floating point, got {logits.dtype}")
    if logits.dim() != 2 or logits.shape[1] < 2 or logits.shape[0] < 1:
        raise ValueError(f"static_losses: logits must be (R, C) with R >= 1 and C >= 2, got {tuple(logits.shape)}")
    rows, classes = logits.shape
    if not 0 <= n_motion <= rows:
        raise ValueError(f"static_losses: n_motion must be in [0, {rows}], got {n_motion}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"static_losses: label_smoothing must be in [0, 1], got {label_smoothing}")
    batch = max(n_motion, rows - n_motion)
    if target.is_floating_point():
        expected = (batch, classes)
        if target.requires_grad:
            raise ValueError("static_losses: not differentiable with respect to the target: detach it")
    elif target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"static_losses: target must hold labels or distributions, got {target.dtype}")
    else:
        expected = (batch,)
    if target.shape != expected:
        raise ValueError(
            f"static_losses: {rows} rows of {classes} logits, {n_motion} of them motion, need a target of shape "
            f"{expected}, got {tuple(target.shape)}"
        )
    if target.device != logits.device:
        raise ValueError(f"static_losses: the target is on {target.device}, the logits on {logits.device}")


def check_labels(logits: Tensor, target: Tensor, ignore_index: int) -> None:
    """Raise ValueError for a label outside [0, C) that is not ``ignore_index``. Waits for the device."""
    if target.is_floating_point():
        return
    classes = logits.shape[1]
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if bool(wrong.any()):
        raise ValueError(f"static_losses: labels must be in [0, {classes}), got {target[wrong].tolist()}")


def accumulator(logits: Tensor) -> torch.dtype:
    """The dtype of the losses."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def allocate_losses(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Uninitialised ce, negent, lse (R,), and what the backward needs (R, 3): max, log sum exp(z - max), sum(q)."""
    rows, dtype = logits.shape[0], accumulator(logits)
    ce, negent, lse = (logits.new_empty(rows, dtype=dtype) for _ in range(3))
    return ce, negent, lse, logits.new_empty((rows, 3), dtype=dtype)


# ------------------------------------------------------------------------------------------------- plain torch


def per_row(target: Tensor, rows: int, n_motion: int) -> Tensor:
    """Repeat a per-clip tensor (B, ...) for the motion rows and the static rows."""
    return target if n_motion in (0, rows) else torch.cat((target[:n_motion], target[: rows - n_motion]))


def label_rows(
    target: Tensor, shape: tuple[int, int], n_motion: int, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(label in [0, C), ignored, wrong) of every row."""
    rows, classes = shape
    label = per_row(target, rows, n_motion).long()
    ignored = label == ignore_index
    wrong = ((label < 0) | (label >= classes)) & ~ignored
    return label.masked_fill(ignored | wrong, 0), ignored, wrong


def static_losses_torch(
    logits: Tensor, target: Tensor, n_motion: int, label_smoothing: float, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The CPU form of the forward: fills what ``allocate_losses`` describes."""
    z = logits.to(accumulator(logits))
    rows, classes = z.shape
    top = z.amax(1, keepdim=True)
    shifted = z - top  # z - max first: z - lse would lose the digits of small losses under large logits
    expd = shifted.exp()
    total = expd.sum(1, keepdim=True)
    log_total = total.log()
    dead = z == -torch.inf
    finite = shifted.masked_fill(dead, 0)
    negent = (expd.masked_fill_(dead, 0) * finite).sum(1) / total[:, 0] - log_total[:, 0]
    log_p = shifted - log_total
    if target.is_floating_point():
        q = per_row(target, rows, n_motion).to(z.dtype)
        if label_smoothing:
            q = q * (1 - label_smoothing) + label_smoothing / classes
        mass = q.sum(1)
        ce = -(q * log_p).masked_fill_(q == 0, 0).sum(1)
        ce.masked_fill_(log_total[:, 0].isnan(), torch.nan)
    else:
        label, ignored, wrong = label_rows(target, (rows, classes), n_motion, ignore_index)
        mass = torch.ones_like(negent)
        ce = -log_p.gather(1, label[:, None])[:, 0]
        if label_smoothing:
            ce = (1 - label_smoothing) * ce - label_smoothing * log_p.mean(1)
        ce = ce.masked_fill_(ignored, 0).masked_fill_(wrong, torch.nan)
    return ce, negent, (top + log_total)[:, 0], torch.stack((top[:, 0], log_total[:, 0], mass), 1)


def static_losses_backward_torch(
    g_ce: Tensor,
    g_negent: Tensor,
    logits: Tensor,
    target: Tensor,
    negent: Tensor,
    stats: Tensor,
    n_motion: int,
    label_smoothing: float,
    ignore_index: int,
) -> Tensor:
    """The CPU form of the gradient with respect to the logits, (R, C) in their dtype."""
    rows, classes = logits.shape
    top, log_total, mass = stats.unsqueeze(2).unbind(1)
    log_p = logits.to(stats.dtype) - top - log_total
    p = log_p.exp()
    if target.is_floating_point():
        q = per_row(target, rows, n_motion).to(p.dtype)
        if label_smoothing:
            q = q * (1 - label_smoothing) + label_smoothing / classes
    else:
        label, ignored, wrong = label_rows(target, (rows, classes), n_motion, ignore_index)
        q = torch.full_like(p, label_smoothing / classes)
        q.scatter_(1, label[:, None], 1 - label_smoothing + label_smoothing / classes)
        g_ce = torch.where(g_ce == 0, g_ce, g_ce.masked_fill(wrong, torch.nan)).masked_fill(ignored, 0)
    a, h = g_ce[:, None], g_negent[:, None]
    from_ce = (a * (p * mass - q)).masked_fill_(a == 0, 0)
    from_negent = (h * p * (log_p - negent[:, None])).masked_fill_((p == 0) | (h == 0), 0)
    return (from_ce + from_negent).to(logits.dtype).contiguous()


# ------------------------------------------------------------------------------------------------- Triton
#
# max() loses NaN on a GPU and keeps it in the interpreter, so nothing may depend on it: a NaN logit travels through the
# sum of exponentials, from there into its logarithm, and through that into every result of its row.
#
# Sums must be added in the same order in every kernel. The order follows from how Triton lays a tile out over threads,
# which follows from the alignment it can prove and from other tiles of the same shape in the kernel. So tiles of a row
# have two dimensions (tiles of clips have one), and no stride is specialised: nothing is ever known of the alignment.

LANES = tl.constexpr(32 * NUM_WARPS)
UNSPECIALISED_ROWS = ("logits_row", "target_row", "n_motion", "ignore_index")


@triton.jit
def tile_columns(start, BLOCK_C: tl.constexpr):
    """(BLOCK_C / LANES, LANES) column numbers from ``start``: neighbours in neighbouring threads."""
    return start + tl.arange(0, BLOCK_C // LANES)[:, None] * LANES + tl.arange(0, LANES)[None, :]


@triton.jit
def total_of(tile):
    return tl.sum(tl.sum(tile, axis=0), axis=0)


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
    row_total = total_of(decay * total)
    row_weighted = total_of(decay * (weighted + gap * total))
    row_against = total_of(against + gap * mass)
    row_mass = total_of(mass)
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


@triton.jit(do_not_specialize=UNSPECIALISED_ROWS)
def static_losses_kernel(
    logits, logits_row, target, target_row, n_motion, ignore_index, smoothing, ces, negents, lses, stats,
    C: tl.constexpr, SOFT: tl.constexpr, SMOOTH: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    own = logits + row.to(tl.int64) * logits_row
    distribution, label, ignored, wrong = row_label(target, target_row, row, n_motion, ignore_index, C, SOFT)
    ce, negent, top, log_total, mass = row_losses(
        own, distribution, label, ignored, wrong, smoothing, C, SOFT, SMOOTH, BLOCK_C
    )
    store_losses(row, ce, negent, top, log_total, mass, ces, negents, lses, stats)


@triton.jit(do_not_specialize=(*UNSPECIALISED_ROWS, "gradient_row"))
def static_losses_backward_kernel(
    g_ce, g_negent, logits, logits_row, target, target_row, n_motion, ignore_index, smoothing, negents, stats,
    gradient, gradient_row, C: tl.constexpr, SOFT: tl.constexpr, SMOOTH: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    row64 = row.to(tl.int64)
    distribution, label, ignored, wrong = row_label(target, target_row, row, n_motion, ignore_index, C, SOFT)
    row_gradient(
        tl.program_id(1) * BLOCK_C, logits + row64 * logits_row, gradient + row64 * gradient_row,
        distribution, label, ignored, wrong, tl.load(g_ce + row), tl.load(g_negent + row),
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
        static_losses_kernel[(logits.shape[0],)](*arguments, *losses, **meta, **LAUNCH)
    return losses


def static_losses_backward_triton(
    g_ce, g_negent, logits, target, negent, stats, n_motion, label_smoothing, ignore_index
):
    """The CUDA form of the gradient; on CPU tensors only under Triton's interpreter."""
    options = (n_motion, label_smoothing, ignore_index)
    if logits.dtype == torch.float64:
        return static_losses_backward_torch(g_ce, g_negent, logits, target, negent, stats, *options)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    arguments, meta = row_launch(logits, target, *options)
    grid = (logits.shape[0], triton.cdiv(meta["C"], meta["BLOCK_C"]))
    # the gradient of a sum or a mean arrives expanded, with stride 0
    g_ce, g_negent = g_ce.contiguous(), g_negent.contiguous()
    with on_device_of(logits):
        static_losses_backward_kernel[grid](
            g_ce, g_negent, *arguments, negent, stats, gradient, gradient.stride(0), **meta, **LAUNCH
        )
    return gradient


# ------------------------------------------------------------------------------------------------- custom ops


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

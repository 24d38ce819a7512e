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

import torch
from torch import Tensor

from ..forward_mode import refuse_forward_mode
from .operators import static_losses_op, weighted_losses_op
from .torch_form import accumulator, row_loss


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


def weighted_losses(
    logits: Tensor,
    target: Tensor,
    n_motion: int,
    ce_weight: Tensor,
    negent_weight: Tensor,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    *,
    validate: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """``weighted_loss`` of ``static_losses``, with the weights inside the kernels: one launch forward, one backward.

    Args:
        logits, target, n_motion, label_smoothing, ignore_index, validate: as in ``static_losses``.
        ce_weight, negent_weight: (R,) in the dtype of the losses; what each row's ce and negent count in the loss.
            They are tensors, so that a schedule never recompiles. A weight of zero switches its term off.

    Returns:
        loss 0-dim, ce (R,), negent (R,). Only the loss is differentiable: once, with respect to the logits.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or option. NotImplementedError: forward-mode differentiation.
    """
    check_loss_arguments(logits, target, n_motion, label_smoothing)
    check_weights("weighted_losses", logits, ce_weight, negent_weight)
    refuse_forward_mode("weighted_losses", logits)
    if validate:
        check_labels(logits, target, ignore_index)
    rows, ce, negent, _, _ = weighted_losses_op(
        logits, target, n_motion, ce_weight, negent_weight, float(label_smoothing), ignore_index
    )
    return rows.sum(), ce, negent


def check_weights(function: str, logits: Tensor, ce_weight: Tensor, negent_weight: Tensor) -> None:
    """Raise ValueError, naming ``function``, for weights that are not (R,) in the dtype of the losses, without grad."""
    rows, dtype = logits.shape[0], accumulator(logits)
    for name, weight in (("ce_weight", ce_weight), ("negent_weight", negent_weight)):
        if weight.shape != (rows,) or weight.dtype != dtype or weight.device != logits.device:
            raise ValueError(
                f"{function}: {name} must be ({rows},) {dtype} on {logits.device}, "
                f"got {tuple(weight.shape)} {weight.dtype} on {weight.device}"
            )
        if weight.requires_grad:
            raise ValueError(f"{function}: not differentiable with respect to {name}: detach it")


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

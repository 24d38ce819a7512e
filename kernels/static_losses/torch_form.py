"""The losses and their gradient in plain torch: the CPU form, and the one for float64 on any device."""

import torch
from torch import Tensor


def accumulator(logits: Tensor) -> torch.dtype:
    """The dtype of the losses."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def allocate_losses(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Uninitialised ce, negent, lse (R,), and what the backward needs (R, 3): max, log sum exp(z - max), sum(q)."""
    rows, dtype = logits.shape[0], accumulator(logits)
    ce, negent, lse = (logits.new_empty(rows, dtype=dtype) for _ in range(3))
    return ce, negent, lse, logits.new_empty((rows, 3), dtype=dtype)


def per_row(target: Tensor, rows: int, n_motion: int) -> Tensor:
    """Repeat a per-clip tensor (B, ...) for the motion rows and the static rows."""
    return target if n_motion in (0, rows) else torch.cat((target[:n_motion], target[: rows - n_motion]))


def label_rows(
    target: Tensor, shape: tuple[int, int], n_motion: int, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(label int64 in [0, C), ignored, wrong), each (R,), of labels (B,); 0 where it is ignored or wrong."""
    rows, classes = shape
    label = per_row(target, rows, n_motion).long()
    ignored = label == ignore_index
    wrong = ((label < 0) | (label >= classes)) & ~ignored
    return label.masked_fill(ignored | wrong, 0), ignored, wrong


def row_loss(ce: Tensor, negent: Tensor, ce_weight: Tensor, negent_weight: Tensor) -> Tensor:
    """The terms of ``weighted_loss``, (R,)."""
    from_ce = torch.where(ce_weight == 0, 0.0, ce_weight * ce)
    return from_ce + torch.where(negent_weight == 0, 0.0, negent_weight * negent)


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


def weighted_losses_torch(
    logits: Tensor,
    target: Tensor,
    n_motion: int,
    ce_weight: Tensor,
    negent_weight: Tensor,
    label_smoothing: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The CPU form: ``row_loss`` (R,), and the four results of ``static_losses_torch``."""
    ce, negent, lse, stats = static_losses_torch(logits, target, n_motion, label_smoothing, ignore_index)
    return row_loss(ce, negent, ce_weight, negent_weight), ce, negent, lse, stats


def weighted_losses_backward_torch(
    g_rows: Tensor,
    ce_weight: Tensor,
    negent_weight: Tensor,
    logits: Tensor,
    target: Tensor,
    negent: Tensor,
    stats: Tensor,
    n_motion: int,
    label_smoothing: float,
    ignore_index: int,
) -> Tensor:
    """The CPU form of the gradient with respect to the logits, (R, C) in their dtype; ``g_rows`` is (R,)."""
    g_ce, g_negent = (torch.where(w == 0, 0.0, w * g_rows) for w in (ce_weight, negent_weight))
    options = (n_motion, label_smoothing, ignore_index)
    return static_losses_backward_torch(g_ce, g_negent, logits, target, negent, stats, *options)

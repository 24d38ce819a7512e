"""Floating point operations of the attention ops, for ``torch.utils.flop_counter``.

Counted are the products of the closed formulas, two operations a multiply-add: 2, 5 and 12 products of M x N x d. What
the Triton form recomputes on top of that is in ``costs``.
"""

import torch
from torch.utils.flop_counter import register_flop_formula

from . import operators  # noqa: F401  (defines the ops that are named below)


def one_product(q: torch.Size, k: torch.Size) -> int:
    batch, heads, queries, size = q
    return 2 * batch * heads * queries * k[2] * size


@register_flop_formula(torch.ops.unstill.attention)
def attention_flops(q, k, *_, out_shape=None, **__) -> int:
    return 2 * one_product(q, k)


@register_flop_formula(torch.ops.unstill.attention_backward)
def attention_backward_flops(do, q, k, *_, out_shape=None, **__) -> int:
    return 5 * one_product(q, k)


@register_flop_formula(torch.ops.unstill.attention_double_backward)
def attention_double_backward_flops(a, b, *_, out_shape=None, **__) -> int:
    return 12 * one_product(a, b)

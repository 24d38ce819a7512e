"""Gradient reversal (Ganin and Lempitsky, 2015): forward as it is, backward times -alpha.

A classifier behind it learns to read its label from the features, which learn not to show it.
"""

import torch
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return -ctx.alpha * gradient, None


def reverse_gradient(x: Tensor, alpha: float) -> Tensor:
    """``x``, whose gradient arrives multiplied by ``-alpha``."""
    return _Reversal.apply(x, alpha)

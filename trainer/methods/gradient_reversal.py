"""Gradient reversal (Ganin and Lempitsky, 2015): forward as it is, backward times -alpha.

A classifier behind it learns to read its label from the features, which learn not to show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def reverse_gradient(x: Tensor, alpha: float) -> Tensor:
    """``x`` (finite), whose gradient arrives multiplied by ``-alpha``.

    Plain arithmetic and no ``autograd.Function``: it adds exactly 0, and may stand in a compiled graph that is
    differentiated twice, as with ALBAR's penalty.
    """
    value = x.detach()
    return value + alpha * (value - x)

"""HSIC, the Hilbert-Schmidt independence criterion: how far two sets of features are from being independent.

    unbiased estimator (Song et al., JMLR 2012), with K~, L~ the kernel matrices with a diagonal of zeros:

    [ tr(K~ L~) + (1'K~1)(1'L~1) / ((m-1)(m-2)) - 2/(m-2) 1'K~ L~1 ] / (m (m-3))

It is 0 on average for independent features, and may be negative. The kernel is exp(-d^2 / (2 sigma^2)).
"""

import torch
from torch import Tensor

from ...pipeline.errors import InputError

LEAST_SAMPLES = 4  # below, the estimator divides by zero


def hsic(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased HSIC of paired features under Gaussian kernels of median width; a scalar, differentiable.

    Args:
        x: (m,D), m at least 4.
        y: (m,E).

    Raises:
        InputError: fewer than 4 samples.
    """
    return hsic_unbiased(gaussian_kernel(x), gaussian_kernel(y))


def hsic_unbiased(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """Unbiased HSIC from two kernel matrices (m,m); their diagonals are not read."""
    m = len(k)
    if m < LEAST_SAMPLES:
        raise InputError(
            f"HSIC needs at least {LEAST_SAMPLES} clips at a time, got {m}; raise --batch-size or lower "
            "--step.accumulate"
        )
    # entry by entry: subtracting the diagonal's vector instead, as a public implementation does, changes every row
    off_diagonal = ~torch.eye(m, dtype=torch.bool, device=k.device)
    k, l = k * off_diagonal, l * off_diagonal  # noqa: E741
    k_rows, l_rows = k.sum(1), l.sum(1)
    trace = (k * l.T).sum()
    return (trace + k_rows.sum() * l_rows.sum() / ((m - 1) * (m - 2)) - 2 / (m - 2) * (k_rows @ l_rows)) / (m * (m - 3))


def gaussian_kernel(x: Tensor) -> Tensor:
    """(m,m) of (m,D); sigma^2 is the median squared distance of different samples, taken as a constant."""
    x = x if x.dtype == torch.float64 else x.float()
    distances = (x[:, None] - x).square().sum(2)  # not |x|^2 + |y|^2 - 2xy: near samples would lose their difference
    m = len(x)
    apart = distances.detach() + torch.diag(distances.new_full((m,), torch.inf))
    sigma2 = apart.flatten().sort().values[(m * (m - 1) - 1) // 2]
    return torch.exp(-distances / (2 * sigma2.clamp_min(torch.finfo(x.dtype).tiny)))

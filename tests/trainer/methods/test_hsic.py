"""HSIC against its definition."""

import itertools

import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.trainer.methods.hsic import gaussian_kernel, hsic, hsic_unbiased


def double_sum(k, l):  # noqa: E741
    """The U-statistic by enumeration: E over different i, j, q, r of k_ij l_ij + k_ij l_qr - 2 k_ij l_iq."""
    total, count = 0.0, 0
    for i, j, q, r in itertools.permutations(range(len(k)), 4):
        total += float(k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q])
        count += 1
    return total / count


def test_equal_to_the_sum_over_all_quadruples_in_float64():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 3, generator=g, dtype=torch.float64), torch.randn(7, 2, generator=g, dtype=torch.float64)
    k, l = gaussian_kernel(x), gaussian_kernel(y)  # noqa: E741
    assert hsic(x, y).item() == pytest.approx(double_sum(k, l), rel=1e-10)
    torch.testing.assert_close(hsic_unbiased(k + 5 * torch.eye(7), l), hsic(x, y))  # the diagonal is not read


def test_kernel_width_is_the_median_distance():
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)  # squared distances 1, 4, 9
    torch.testing.assert_close(gaussian_kernel(x)[0, 1], torch.exp(torch.tensor(-1 / 8, dtype=torch.float64)))


def test_zero_on_average_when_independent_and_positive_when_not():
    g = torch.Generator().manual_seed(1)
    independent, dependent = [], []
    for _ in range(200):
        x, y = torch.randn(24, 4, generator=g), torch.randn(24, 4, generator=g)
        independent.append(hsic(x, y))
        dependent.append(hsic(x, x + 0.5 * y))
    independent, dependent = torch.stack(independent), torch.stack(dependent)
    assert abs(independent.mean()) < 4 * independent.std() / 200**0.5 and independent.std() > 0
    assert independent.min() < 0 < independent.max()
    assert dependent.mean() > 8 * independent.std()


def test_differentiable_and_finite_where_samples_coincide():
    x = torch.zeros(5, 3, requires_grad=True)
    value = hsic(x, torch.randn(5, 3))
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()


def test_three_samples_are_refused():
    with pytest.raises(InputError, match="at least 4 clips"):
        hsic(torch.randn(3, 2), torch.randn(3, 2))

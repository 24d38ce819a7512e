"""The linear probe: the optimum of its objective, folds that keep sources together, and no dependence on the order."""

import math

import numpy as np
import pytest

from unstill.trainer.evaluation.linear_probe import cross_fitted, fit, folds_of


def objective(x, y, weight, bias, base, decay):
    """Mean cross entropy + penalty, written out with plain loops; ``bias`` on top of the base rates."""
    total = 0.0
    for row, label in zip(x, y, strict=True):
        z = row @ weight + bias + base
        total += math.log(np.exp(z).sum()) - z[label]
    return total / len(x) + decay * ((weight**2).sum() + (bias**2).sum())


def test_the_fit_is_the_minimum_of_its_objective():
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (60, 4)), rng.integers(3, size=60)
    x[:, 0] += y
    found = fit(x, y, 4, 0.01)  # class 3 never occurs
    standard, base = (x - x.mean(0)) / x.std(0), np.log((np.bincount(y, minlength=4) + 0.5) / 62)
    at = np.concatenate([found.weight, (found.bias - base)[None]])
    for place in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[place] = 1e-5
        up, down = (objective(standard, y, p[:-1], p[-1], base, 0.01) for p in (at + step, at - step))
        assert abs(up - down) / 2e-5 < 1e-6, place
    p = np.exp(found.log_probabilities(x))
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p[:, 3] > 1e-4).all()


def test_constant_columns_and_rounding_of_constants_count_nothing():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=80)
    x = np.stack([np.full(80, 7.0), 3 + 1e-7 * y, y + rng.normal(size=80)], 1)
    assert (np.abs(fit(x, y, 2, 1e-3).weight).sum(1) > 1e-9).tolist() == [False, False, True]


def test_sources_stay_together():
    """Features that name the source: with a source on both sides the probe would be right on nearly everything."""
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(60), 5)
    label_of = rng.integers(4, size=60)
    x, y = np.eye(60)[source], label_of[source]
    fair, leaky = cross_fitted(x, y, groups=source.tolist()), cross_fitted(x, y)
    assert (fair.predicted == y).mean() < 0.45 and (leaky.predicted == y).mean() > 0.9
    assert all(len(set(fair.fold[source == s])) == 1 for s in range(60))
    for k in range(5):  # each class is spread evenly
        assert (
            abs(np.bincount(label_of, minlength=4) / 5 - np.bincount(y[fair.fold == k], minlength=4) / 5).max() < 1.01
        )


def test_the_order_of_the_rows_changes_nothing():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=120)
    x, names = np.eye(3)[y] + rng.normal(size=(120, 3)), [f"video{n // 2}" for n in range(120)]
    order = rng.permutation(120)
    once = cross_fitted(x, y, groups=names)
    again = cross_fitted(x[order], y[order], groups=[names[n] for n in order])
    np.testing.assert_allclose(again.log_probabilities, once.log_probabilities[order], atol=1e-6)
    assert again.decays == once.decays and (again.fold == once.fold[order]).all()


def test_noise_is_worth_nothing_and_signal_is_found():
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=400)
    noise = rng.normal(size=(400, 50))
    for x, low, high in ((noise, 0.15, 0.35), (noise[:, :4] / 100 + np.eye(4)[y], 0.99, 1)):
        assert low <= (cross_fitted(x, y).predicted == y).mean() <= high
    # the penalty is chosen so that noise costs little: cross entropy stays near ln 4
    log_p = cross_fitted(noise, y).log_probabilities[np.arange(400), y]
    assert -log_p.mean() < math.log(4) + 0.02


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.full((9, 2), np.nan), np.zeros(9, int), {}, "finite"),
        (np.zeros((9, 2)), np.zeros(8, int), {}, "expected"),
        (np.zeros((9, 2)), np.zeros(9, int), {"groups": ["a"] * 9}, "1 groups"),
        (np.zeros((9, 2)), np.zeros(9, int), {"folds": 2}, "third fold"),
    ],
)
def test_refusals(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        cross_fitted(x, y, **options)


def test_folds_need_groups():
    assert sorted(np.bincount(folds_of(np.zeros(10, int), None, 5)).tolist()) == [2] * 5

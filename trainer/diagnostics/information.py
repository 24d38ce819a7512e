"""How much of a video's scene, actor or class a model's features hold: a lower bound of the mutual information.

    I(z; b | y)  >=  E[ log q(b | z, y) - log p(b | y) ],   q(b | z, y) = p(b | y) exp(T_b(z)) / (the sum over b)

It holds for any T (Barber and Agakov, 2003) and is tight where q is the true posterior. Here p(b | y) are the
frequencies among the videos, and T is a linear layer, trained on other videos than it is tested on. One that finds
nothing is 0 and leaves p(b | y), so features without information give a bound of 0 but for noise. The question is that
of Seo et al. ("Information-Theoretic Bias Reduction via Causal View of Spurious Correlation", AAAI 2022): how much of a
bias attribute is left in the features once the target is known. The estimator is ours.

The value says what a *linear* layer can use after so many videos; the features may hold more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.linear_probe import DECAYS, cross_fitted
from ..evaluation.protocols import Z95


@dataclass(frozen=True)
class Information:
    """In nats.

    Attributes:
        bound: lower bound of the mutual information; below 0 by chance where there is none.
        low, high: 95 % interval of the bound over test videos, clustered by source video.
        entropy: H(b | y) by the frequencies: what there is to know.
        accuracy: of the probe, in [0, 1].
        base: accuracy of always naming the most frequent b of each y.
        samples: how many videos.
    """

    bound: float
    low: float
    high: float
    entropy: float
    accuracy: float
    base: float
    samples: int

    @property
    def share(self) -> float:
        """The bound over the entropy; NaN where there is nothing to know."""
        return self.bound / self.entropy if self.entropy > 0 else float("nan")


def information(
    features: np.ndarray,
    target: np.ndarray,
    given: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    *,
    by_class: bool = False,
    folds: int = 5,
    decays: Sequence[float] = DECAYS,
) -> Information:
    """The bound of I(features; target | given).

    Args:
        features: (N,D).
        target: int (N,), b: 0 to K-1.
        given: int (N,), y; by default nothing is given.
        groups: N names of source videos.
        by_class: the linear layer may differ from class to class (its penalty draws all to one): tighter where what z
            says of b depends on y, K * (number of classes + 1) weights a feature instead of K.
        folds, decays: of the cross-fitted probe.

    Raises:
        ValueError: shapes that do not fit.
    """
    b = np.asarray(target, np.int64)
    y = np.zeros_like(b) if given is None else np.asarray(given, np.int64)
    x = np.asarray(features, np.float64)
    if not len(x) == len(b) == len(y):
        raise ValueError(f"{len(x)} features, {len(b)} targets, {len(y)} classes: need one each")
    counts = np.zeros((int(y.max()) + 1, int(b.max()) + 1))
    np.add.at(counts, (y, b), 1)
    counts += 1e-3  # a b that never occurs with a y has a small probability, not none
    frequency = np.log(counts / counts.sum(1, keepdims=True))[y]
    at_label = frequency[np.arange(len(b)), b]
    if by_class:
        own = np.eye(len(counts))[y]
        x = np.concatenate([x, ((x - x.mean(0))[:, None] * own[:, :, None]).reshape(len(x), -1)], 1)
    fit = cross_fitted(x, b, classes=counts.shape[1], groups=groups, folds=folds, decays=decays, offset=frequency)
    gain = fit.log_probabilities[np.arange(len(b)), b] - at_label
    bound, half = _mean_and_half(gain, groups)
    return Information(
        bound=bound,
        low=bound - half,
        high=bound + half,
        entropy=float(-at_label.mean()),
        accuracy=float((fit.predicted == b).mean()),
        base=float((counts.argmax(1)[y] == b).mean()),
        samples=len(b),
    )


def _mean_and_half(values: np.ndarray, groups: Sequence[str] | None) -> tuple[float, float]:
    """The mean and half of its 95 % interval, whose variance is that of sums over clusters."""
    names = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    clusters = int(names.max()) + 1
    mean = float(values.mean())
    sums = np.bincount(names, values - mean)
    variance = clusters / max(clusters - 1, 1) * (sums**2).sum() / len(values) ** 2
    return mean, float(Z95 * np.sqrt(variance))

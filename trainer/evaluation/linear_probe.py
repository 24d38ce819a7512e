"""What a linear layer can read from features or logits: cross-validated, L2-regularised logistic regression.

    found = cross_fitted(features, labels, groups=[source_video(key) for key in keys])
    (found.predicted == labels).mean()          # accuracy on samples that the probe has not seen
    found.log_probabilities                     # (N,C); their mean at the labels bounds -H(label | features) from below

Everything is float64 and free of random numbers. Samples of one group (composites of one source video, say) are never
in training and test at once; the folds follow from the groups' names and labels alone, not from the order of the rows.
"""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        mean, spread: float64 (D,), of the standardisation by the training features.
        weight: float64 (D,C), on standardised features.
        bias: float64 (C,).
    """

    mean: np.ndarray
    spread: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def log_probabilities(self, x: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
        """float64 (N,C) for features (N,D); ``offset`` (N,C) is added to the logits."""
        return _log_softmax(((x - self.mean) / self.spread) @ self.weight + self.bias + offset)


@dataclass(frozen=True)
class CrossFit:
    """What probes said about samples that they were not trained on.

    Attributes:
        log_probabilities: float64 (N,C).
        fold: int64 (N,), which probe spoke about each sample.
        decays: the penalty of each fold's probe.
    """

    log_probabilities: np.ndarray
    fold: np.ndarray
    decays: tuple[float, ...]

    @property
    def predicted(self) -> np.ndarray:
        """int64 (N,): the most likely class, the first one on a tie."""
        return self.log_probabilities.argmax(1)


def cross_fitted(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int | None = None,
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
    decays: Sequence[float] = DECAYS,
    offset: np.ndarray | None = None,
) -> CrossFit:
    """Fit one probe a fold on the other folds, and let it speak about its own.

    Args:
        features: (N,D), finite.
        labels: int (N,), 0 to C-1.
        classes: C; by default the largest label + 1.
        groups: N names; samples of one group share a fold. By default each sample is its own group.
        folds: how many; at least 3 where there are several ``decays``.
        decays: penalties of the squared weights to choose from. With several, each fold's probe takes the one with the
            least cross entropy on the next fold, of probes that were trained without both; so no probe's penalty is
            chosen by the samples that it speaks about.
        offset: float (N,C), added to the logits in training and test: what is known without the features. By default
            the smoothed logarithm of the class frequencies in training.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, too few groups or folds.
    """
    x, y = np.asarray(features, np.float64), np.asarray(labels, np.int64)
    n_classes = int(y.max()) + 1 if classes is None else classes
    if len(decays) > 1 and folds < 3:
        raise ValueError(f"{folds} folds: to choose among several penalties a third fold is needed")
    if x.ndim != 2 or len(x) != len(y) or not np.isfinite(x).all():
        raise ValueError(f"features {x.shape} for {len(y)} labels: expected (N,D), all finite")
    fold = folds_of(y, groups, folds)
    found = np.empty((len(x), n_classes))
    chosen = []
    for k in range(folds):
        decay = decays[0]
        if len(decays) > 1:
            inner = fold == (k + 1) % folds
            decay = best_decay(x, y, n_classes, (fold != k) & ~inner, inner, decays, offset)
        train, test = fold != k, fold == k
        known = None if offset is None else offset[train]
        probe = fit(x[train], y[train], n_classes, decay, known)
        found[test] = probe.log_probabilities(x[test], 0.0 if offset is None else offset[test])
        chosen.append(decay)
    return CrossFit(found, fold, tuple(chosen))


def fit(
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    decay: float,
    offset: np.ndarray | None = None,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Minimise mean cross entropy + ``decay`` * (squared weights + squared intercepts), to the end, by L-BFGS.

    The base rates of the classes enter as an offset of the logits, so that the penalty draws the probe towards them
    and a class that training lacks has a small probability, not none.

    Args:
        x: (N,D); standardised by its own mean and deviation. A column that does not vary counts nothing.
        y: int64 (N,), 0 to C-1.
        classes: C.
        decay: more than 0.
        offset: (N,C), in place of the base rates.
        start: a probe to start from; changes the time, not the result.
    """
    x = np.asarray(x, np.float64)
    mean, spread = x.mean(0), x.std(0)
    scale = np.abs(x).max(0, initial=1e-300)
    spread = np.where(spread > 1e-6 * scale, spread, np.inf)  # float32 rounding of a constant is no information
    features = torch.from_numpy((x - mean) / spread)
    base = np.zeros(classes)
    if offset is None:
        base = np.log((np.bincount(y, minlength=classes) + 0.5) / (len(y) + 0.5 * classes))
    known = torch.from_numpy(np.broadcast_to(base if offset is None else offset, (len(y), classes)).copy())
    target = torch.zeros(len(y), classes, dtype=torch.float64)
    target[torch.arange(len(y)), torch.from_numpy(np.asarray(y, np.int64))] = 1
    parameters = torch.zeros(features.shape[1] + 1, classes, dtype=torch.float64)  # the last row is the intercepts
    if start is not None:
        parameters[:-1], parameters[-1] = torch.from_numpy(start.weight), torch.from_numpy(start.bias - base)
    optimiser = torch.optim.LBFGS(
        [parameters],
        max_iter=500,
        history_size=10,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        log_p = torch.log_softmax(known + features @ parameters[:-1] + parameters[-1], 1)
        residual = (log_p.exp() - target) / len(y)
        gradient = torch.cat([features.T @ residual, residual.sum(0, keepdim=True)])
        parameters.grad = gradient + 2 * decay * parameters
        return -(target * log_p).sum() / len(y) + decay * parameters.square().sum()

    with torch.no_grad():
        optimiser.step(closure)
    fitted = parameters.numpy()
    return LinearProbe(mean, spread, fitted[:-1].copy(), fitted[-1] + base)


def folds_of(labels: np.ndarray, groups: Sequence[Hashable] | None, folds: int) -> np.ndarray:
    """int64 (N,): a fold for every sample, groups kept together and labels spread evenly.

    Groups are dealt out in turn, ordered by their first label in sorted order and then by a hash of their name.

    Raises:
        ValueError: fewer groups than folds.
    """
    names = [repr(name) for name in (range(len(labels)) if groups is None else groups)]
    label_of: dict[str, int] = {}
    for name, label in zip(names, np.asarray(labels).tolist(), strict=True):
        label_of[name] = min(label, label_of.get(name, label))
    if len(label_of) < folds or folds < 2:
        raise ValueError(
            f"{len(label_of)} groups cannot be dealt to {folds} folds; expected 2 folds or more, and a group each"
        )
    digest = {name: hashlib.blake2b(name.encode(), digest_size=8).digest() for name in label_of}
    order = sorted(label_of, key=lambda name: (label_of[name], digest[name]))
    fold = {name: n % folds for n, name in enumerate(order)}
    return np.array([fold[name] for name in names], np.int64)


def best_decay(
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    train: np.ndarray,
    held_out: np.ndarray,
    decays: Sequence[float],
    offset: np.ndarray | None,
) -> float:
    """The penalty with the least cross entropy on the rows ``held_out`` of probes fitted to the rows ``train``."""
    start, costs = None, []
    ordered = sorted(decays, reverse=True)  # from the most penalised on: each is a short way from the one before
    for decay in ordered:
        start = fit(x[train], y[train], classes, decay, None if offset is None else offset[train], start)
        log_p = start.log_probabilities(x[held_out], 0.0 if offset is None else offset[held_out])
        costs.append(-log_p[np.arange(len(log_p)), y[held_out]].mean())
    return ordered[int(np.argmin(costs))]


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))

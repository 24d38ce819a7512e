"""The bias protocols: pure functions from predictions to one score a sample, and from scores to a share in percent.

| protocol | question | source |
|---|---|---|
| accuracy | right class? | |
| contrasted | right on the SCUBA video *and* wrong on its SCUFO twin, which does not move? | StillMix |
| Confl-FG | the moving actor's class, or that of the other actor who stands still? | StillMix |
| reversed keep / flip | does a video played backwards keep its class, or become the mirror class? | |
| static entropy | how undecided is the model about a clip that does not move? 1 = fully | ALBAR |
| least | is the label the least likely class? | |
| probe | can a linear classifier read the label from the logits, or the features? | |

Two sets are always joined by key, never by position: a key that one of them lacks is an error that names it.
Scores are per sample, so that they can be averaged per class, and clustered by source video for the intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...pipeline.errors import InputError
from .linear_probe import cross_fitted
from .predictions import Predictions

Z95 = 1.959964  # standard normal quantile of a two-sided 95 % interval
PROBE_FOLDS = 5
PROBE_DECAY = 1e-3  # of the squared weights: enough for a minimum, too little to hide anything


def correct(predictions: Predictions) -> np.ndarray:
    """bool (N,): the highest logit is the label's."""
    return predictions.predicted == predictions.labels


def contrasted(scuba: Predictions, scufo: Predictions) -> np.ndarray:
    """bool (N,), in the order of ``scuba``: right on the SCUBA video and wrong on its SCUFO twin.

    Raises:
        InputError: the two do not hold the same keys, or a key's labels differ; the message names the key.
    """
    scufo = scufo.aligned(scuba.keys, of=scuba.name)
    differs = np.flatnonzero(scuba.labels != scufo.labels)
    if len(differs):
        n = differs[0]
        raise InputError(
            f"key {scuba.keys[n]!r}: label {scuba.labels[n]} in {scuba.name}, {scufo.labels[n]} in {scufo.name}; "
            "a pair must have one label"
        )
    return correct(scuba) & ~correct(scufo)


@dataclass(frozen=True)
class ConflictingForeground:
    """Confl-FG scores, bool (N,) each.

    Attributes:
        dynamic: the prediction is the moving actor's class; the headline.
        static: the prediction is the still actor's class.
        preference: the moving actor's class has a higher probability than the still one's.
    """

    dynamic: np.ndarray
    static: np.ndarray
    preference: np.ndarray


def conflicting_foreground(predictions: Predictions, static_label: Mapping[str, int]) -> ConflictingForeground:
    """Which of two actors decides: the one that moves (the label), or the other class's that stands still.

    Args:
        static_label: the still actor's class of every key.

    Raises:
        InputError: a key is missing on either side, or both actors have one class.
    """
    keys = predictions.keys
    for key in keys:
        if key not in static_label:
            raise InputError(f"static labels: key {key!r} of {predictions.name} is missing; both must hold the same")
    if len(static_label) != len(keys):
        extra = next(iter(set(static_label) - set(keys)))
        raise InputError(f"{predictions.name}: key {extra!r} of the static labels is missing; both must hold the same")
    still = np.array([static_label[key] for key in keys], np.int64)
    same = np.flatnonzero(still == predictions.labels)
    if len(same):
        raise InputError(f"key {keys[same[0]]!r}: the still actor has the moving actor's class; they must conflict")
    rows, predicted = np.arange(len(keys)), predictions.predicted
    return ConflictingForeground(
        dynamic=correct(predictions),
        static=predicted == still,
        preference=predictions.logits[rows, predictions.labels] > predictions.logits[rows, still],
    )


def mirror_labels(classes: Sequence[str], mirror: Mapping[str, str]) -> np.ndarray:
    """int64 (C,): the class that each class becomes when time runs backwards, -1 where none is given.

    Raises:
        InputError: a name is no class, or the map does not lead back.
    """
    position = {name: n for n, name in enumerate(classes)}
    labels = np.full(len(classes), -1, np.int64)
    for name, other in mirror.items():
        for known in (name, other):
            if known not in position:
                raise InputError(f"mirror classes: {known!r} is no class; expected one of {', '.join(classes)}")
        if mirror.get(other) != name:
            raise InputError(f"mirror classes: {name!r} becomes {other!r}, which does not become {name!r}; give both")
        labels[position[name]] = position[other]
    return labels


def reversed_keep_flip(predictions: Predictions, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions on time-reversed videos: the class of the forward video, or its mirror class?

    Only videos whose class has a *different* mirror class count: reversal leaves the others undecided.

    Args:
        mirror: int64 (C,), from ``mirror_labels``.

    Returns:
        keep, flip: bool (M,). counted: int64 (M,), the samples they belong to.

    Raises:
        InputError: no video has a mirror class.
    """
    target = np.asarray(mirror)[predictions.labels]
    counted = np.flatnonzero((target >= 0) & (target != predictions.labels))
    if not len(counted):
        raise InputError(f"{predictions.name}: no video's class has a mirror class; give mirror classes")
    predicted = predictions.predicted[counted]
    return predicted == predictions.labels[counted], predicted == target[counted], counted


def entropy(predictions: Predictions) -> np.ndarray:
    """float64 (N,): entropy of the predicted distribution over ln C, between 0 (certain) and 1 (undecided)."""
    logits = predictions.logits.astype(np.float64)
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    return -(np.exp(log_p) * log_p).sum(1) / np.log(logits.shape[1])


def least_likely(predictions: Predictions) -> np.ndarray:
    """float64 (N,): 1 where the label alone has the lowest logit, 1/k where it shares it with k - 1 others, else 0.

    On average 1/C where the logits say nothing of the label: constant logits score 1/C as random ones do.
    """
    lowest = predictions.logits == predictions.logits.min(1, keepdims=True)
    return lowest[np.arange(len(predictions)), predictions.labels] / lowest.sum(1)


def linearly_readable(predictions: Predictions, features: np.ndarray | None = None) -> np.ndarray | None:
    """bool (N,): a linear classifier, fitted to the other source videos, reads the label.

    Args:
        predictions: what is probed are their logits less each sample's mean, so that logits and log-probabilities
            give the same.
        features: float (N,D), to be probed instead.

    Returns:
        The scores; None where there are fewer than two classes or five source videos. See ``linear_probe``.
    """
    logits = predictions.logits.astype(np.float64)
    probed = logits - logits.mean(1, keepdims=True) if features is None else features
    sources = [source_video(key) for key in predictions.keys]
    occurring, labels = np.unique(predictions.labels, return_inverse=True)
    if len(occurring) < 2 or len(set(sources)) < PROBE_FOLDS:
        return None
    found = cross_fitted(probed, labels, groups=sources, folds=PROBE_FOLDS, decays=(PROBE_DECAY,))
    return found.predicted == labels


def source_video(key: str) -> str:
    """The source of a composite: ``<video>__<k>``, the k-th background of a video, belongs to ``<video>``."""
    return key.rsplit("__", 1)[0] if key.rsplit("__", 1)[-1].isdigit() else key


@dataclass(frozen=True)
class Share:
    """A mean of per-sample scores in percent, with a 95 % confidence interval.

    Attributes:
        value, low, high: percent.
        samples: how many scores were averaged.
        clusters: how many independent source videos they come from.
    """

    value: float
    low: float
    high: float
    samples: int
    clusters: int


def share(
    scores: np.ndarray,
    keys: Sequence[str],
    cluster: Callable[[str], str] = source_video,
    weights: np.ndarray | None = None,
) -> Share:
    """Mean score in percent, with Wilson's interval at the effective sample size of the clusters.

    Composites of one source video are not independent. With samples i of weight w_i in clusters g, the variance of the
    mean p is G/(G-1) * sum_g (sum_i_in_g w_i (s_i - p))^2 / (sum w)^2 (the ratio estimator of cluster sampling), and
    the interval is Wilson's for p(1-p)/variance samples; where all samples agree, for G samples.

    Args:
        scores: (N,) between 0 and 1.
        keys: N keys; they may repeat, in sets of several backgrounds.
        cluster: key -> name of its source video.
        weights: (N,), positive; equal by default.
    """
    scores = np.asarray(scores, np.float64)
    if len(scores) != len(keys) or not len(scores):
        raise ValueError(f"{len(scores)} scores for {len(keys)} keys: need one each, and at least one")
    shares = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    shares = shares / shares.sum()
    _, group = np.unique([cluster(key) for key in keys], return_inverse=True)
    p, clusters = min(float((shares * scores).sum()), 1.0), int(group.max()) + 1
    effective = float(clusters)
    if clusters > 1:
        deviations = np.bincount(group, shares * (scores - p))
        variance = clusters / (clusters - 1) * (deviations**2).sum()
        if variance > 1e-15 and 0 < p < 1:
            effective = min(p * (1 - p) / variance, float(len(scores)))
    shrink = 1 + Z95**2 / effective
    centre = (p + Z95**2 / (2 * effective)) / shrink
    half = Z95 * np.sqrt(p * (1 - p) / effective + Z95**2 / (4 * effective**2)) / shrink
    low, high = max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))
    return Share(100 * p, 100 * float(low), 100 * float(high), len(scores), clusters)


def per_class(scores: np.ndarray, predictions: Predictions) -> dict[str, float]:
    """Mean score in percent of every class that occurs."""
    return {
        name: 100 * float(np.mean(scores[predictions.labels == label]))
        for label, name in enumerate(predictions.classes)
        if (predictions.labels == label).any()
    }

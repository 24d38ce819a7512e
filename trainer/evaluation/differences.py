"""How far two models differ, with an interval: both saw the same clips, so it is taken of their differences.

The interval is a percentile bootstrap over source videos, the same draw for both models: composites of one source are
not independent, and a hard video is hard for both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .protocols import source_video
from .scorecard import Sampled, Scorecard

DRAWS, SEED = 2000, 0
_AT_ONCE = 100  # draws held in memory


@dataclass(frozen=True)
class Difference:
    """The second model's percentage less the first's, in points, with a 95 % interval.

    Attributes:
        value, low, high: points.
        samples: how many clips both have.
        clusters: how many source videos these come from.
        per_class: the same by class; empty for a class.
    """

    value: float
    low: float
    high: float
    samples: int
    clusters: int
    per_class: "dict[str, Difference]" = field(default_factory=dict)

    @property
    def certain(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def differences(
    first: Scorecard, second: Scorecard, *, draws: int = DRAWS, cluster: Callable[[str], str] = source_video
) -> dict[str, Difference]:
    """By measure, of those that both models have on the same clips.

    Args:
        first, second: scorecards with the scores of their samples.
        draws: of the bootstrap.
        cluster: key -> name of its source video.
    """
    found = {}
    for measure, one in first.sampled.items():
        other = second.sampled.get(measure)
        if other is not None and one.keys == other.keys and np.array_equal(one.labels, other.labels):
            found[measure] = _difference(one, other, draws, cluster)
    return found


def _difference(one: Sampled, other: Sampled, draws: int, cluster: Callable[[str], str]) -> Difference:
    change = other.scores - one.scores
    _, group = np.unique([cluster(key) for key in one.keys], return_inverse=True)
    clusters = int(group.max()) + 1
    labels = [label for label in range(len(one.classes)) if (one.labels == label).any()]
    # column 0 is all classes; the others are one class each
    member = np.stack([np.ones(len(change), bool), *(one.labels == label for label in labels)], 1)
    # by class the weights are each background's own: the mean over backgrounds of the class's mean
    weights = np.concatenate([one.weights[:, None], one.class_weights[:, None] * member[:, 1:]], 1)
    sums = np.zeros((2, clusters, member.shape[1]))
    np.add.at(sums[0], group, weights * change[:, None])
    np.add.at(sums[1], group, weights)
    value = sums[0].sum(0) / sums[1].sum(0)
    drawn = _bootstrap(sums, draws)
    low, high = np.nanpercentile(drawn, (2.5, 97.5), axis=0)
    counts = [(int(column.sum()), len(np.unique(group[column]))) for column in member.T]
    parts = [
        Difference(100 * float(v), 100 * float(lo), 100 * float(hi), *count)
        for v, lo, hi, count in zip(value, low, high, counts, strict=True)
    ]
    named = {one.classes[label]: part for label, part in zip(labels, parts[1:], strict=True)}
    whole = parts[0]
    return Difference(whole.value, whole.low, whole.high, whole.samples, whole.clusters, named)


def _bootstrap(sums: np.ndarray, draws: int) -> np.ndarray:
    """(draws, K): the ratio of both sums over clusters (2, G, K), each time over G clusters drawn with replacement.

    A class that a draw has no cluster of is NaN there.
    """
    clusters, rng, found = sums.shape[1], np.random.default_rng(SEED), []
    for start in range(0, draws, _AT_ONCE):
        size = min(_AT_ONCE, draws - start)
        counts = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(np.float64)
        above, below = counts @ sums[0], counts @ sums[1]
        found.append(np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0))
    return np.concatenate(found)

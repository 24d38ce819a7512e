"""How much of a layer follows what moves, and how much follows what stands: Kowal et al. (CVPR 2022), with raw scores.

Pairs of clips share one factor and nothing else:

    dynamic   the same motion with another appearance          za, zb differ in what stands
    static    a clip, and the same frames in another order     za, zb differ in what moves

Of D units z, averaged over time and space, with m_f the mean over the pairs of factor f and var over all pairs:

    score_f = sum_c mean[(za - m_f)(zb - m_f)] / sum_c var[z]      about 1: only the factor counts; 0: it does not
    share   = softmax(score_dynamic, score_static, 1)              the published "dimensions", of D units

A dynamic score above 1 is possible: the variance is over all clips, and those in another order vary less in a layer
that follows motion alone (1.4 for a network that computes the optical flow).

The published code (YorkUCVIL/Static-Dynamic-Interpretability, ``dim_est``) gives a third, residual factor the score 1.
With scores between 0 and 1 the softmax confines the first two shares to 15.5 to 42.2 %, so they look alike whatever the
network does; the scores themselves are not confined. A unit is dynamic, static, joint or neither by whether its own
correlation over the pairs of each factor is more than one half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

JOINT = 0.5  # correlation above which a unit counts as following a factor, as published
RESAMPLES = 200  # of the pairs, for the intervals


@dataclass(frozen=True)
class StaticDynamic:
    """Of one layer.

    Attributes:
        dynamic, static: the scores.
        dynamic_interval, static_interval: 2.5th and 97.5th percentile of the score over resampled source videos.
        dimensions: units by factor after the softmax: dynamic, static, residual; they add up to D.
        units: number of units that follow "dynamic" alone, "static" alone, "joint" (both), or "neither".
    """

    dynamic: float
    static: float
    dynamic_interval: tuple[float, float]
    static_interval: tuple[float, float]
    dimensions: dict[str, int]
    units: dict[str, int]


def static_dynamic(
    dynamic: tuple[np.ndarray, np.ndarray],
    static: tuple[np.ndarray, np.ndarray],
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> StaticDynamic:
    """Scores of one layer.

    Args:
        dynamic: za and zb, (N,D) each, of pairs that share their motion.
        static: the same (kN,D), of pairs that share their frames but not their order; rows n, n + N, ... are of the
            same video as above. Take them from both sides of the dynamic pairs, or the variance is not theirs.
        groups: N names of source videos; resampled together. By default each row is its own.
        seed: of the resampling.

    Raises:
        ValueError: shapes differ, or no unit varies at all.
    """
    pairs = [np.asarray(z, np.float64) for z in (*dynamic, *static)]
    n, times = len(pairs[0]), len(pairs[2]) // len(pairs[0])
    if [z.shape for z in pairs] != 2 * [pairs[0].shape] + 2 * [(n * times, *pairs[0].shape[1:])] or pairs[0].ndim != 2:
        raise ValueError(f"pairs {[z.shape for z in pairs]}: expected (N,D) twice, then (kN,D) twice")
    names = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if not np.concatenate(pairs).var(0).sum() > 0:
        raise ValueError("no unit varies: a constant layer follows nothing")
    rows_of = [np.flatnonzero(names == k) for k in range(names.max() + 1)]
    rng = np.random.default_rng(seed)
    again = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rows_of[k] for k in rng.integers(len(rows_of), size=len(rows_of))])
        more = np.concatenate([rows + n * k for k in range(times)])
        again.append(_scores([*(z[rows] for z in pairs[:2]), *(z[more] for z in pairs[2:])]))
    low, high = np.nanquantile(again, [0.025, 0.975], axis=0).tolist()
    score = _scores(pairs)
    follows = {name: _correlation(za, zb) > JOINT for name, za, zb in (("dynamic", *pairs[:2]), ("static", *pairs[2:]))}
    both = follows["dynamic"] & follows["static"]
    either = follows["dynamic"] | follows["static"]
    units = {
        "dynamic": int((follows["dynamic"] & ~both).sum()),
        "static": int((follows["static"] & ~both).sum()),
        "joint": int(both.sum()),
        "neither": int((~either).sum()),
    }
    return StaticDynamic(
        score[0], score[1], (low[0], high[0]), (low[1], high[1]), dimensions(*score, pairs[0].shape[1]), units
    )


def dimensions(dynamic: float, static: float, units: int) -> dict[str, int]:
    """Units by factor: the softmax of both scores and 1, rounded down, and what is left for the residual."""
    weight = np.exp([dynamic, static, 1.0])
    shares = weight / weight.sum()
    first, second = (int(share * units) for share in shares[:2])
    return {"dynamic": first, "static": second, "residual": units - first - second}


def _scores(pairs: Sequence[np.ndarray]) -> tuple[float, float]:
    total = np.concatenate(pairs).var(0).sum()
    if total == 0:
        return float("nan"), float("nan")
    found = [float(_covariance(za, zb).sum() / total) for za, zb in (pairs[:2], pairs[2:])]
    return found[0], found[1]


def _covariance(za: np.ndarray, zb: np.ndarray) -> np.ndarray:
    """(D,), around the mean of all of both."""
    mean = (za.mean(0) + zb.mean(0)) / 2
    return ((za - mean) * (zb - mean)).mean(0)


def _correlation(za: np.ndarray, zb: np.ndarray) -> np.ndarray:
    """(D,); 0 for a unit that does not vary."""
    spread = np.concatenate([za, zb]).var(0)
    return np.divide(_covariance(za, zb), spread, out=np.zeros_like(spread), where=spread > 0)

"""Frame-level ROC-AUC and average precision over the frames of many videos, with bootstrap intervals by video.

    curve = FrameScores.of(scores, truth)            # one array of each a video
    curve.roc_auc(), curve.average_precision()
    bootstrap([curve], samples=1000).roc_auc         # percentile interval, videos drawn with replacement

All videos' frames are ranked together, as the literature on UCF-Crime does. Frames of one video are no independent
samples: the interval draws videos, not frames. Sources: ROC-AUC is the Mann-Whitney statistic, a tie counts one half;
average precision is the sum of precision times the gain of recall over the distinct scores, without interpolation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...pipeline.errors import InputError


@dataclass(frozen=True)
class Interval:
    """A number with the ends of its interval.

    Attributes:
        value: on all videos.
        low, high: percentiles over the resamples; NaN where fewer than two of them could be scored.
        samples: resamples that could be scored. One without a positive or without a negative frame cannot.
    """

    value: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class FrameScores:
    """Frames counted by score and video, in G groups of one score and one video, by falling score.

    Attributes:
        video: int64 (G,), the video of each group, 0 .. videos - 1.
        positive, negative: int64 (G,), its frames.
        first: int64 (S,), where each of the S distinct scores starts.
        videos: number of videos.
    """

    video: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    first: np.ndarray
    videos: int

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> "FrameScores":
        """Count the frames.

        Args:
            scores: float (n,) of each video; higher is more abnormal. They are compared as float64.
            truth: bool or 0 and 1 (n,) of each video.

        Raises:
            InputError: lengths differ, a score is NaN, or there is no video.
        """
        if len(scores) != len(truth) or not len(scores):
            raise InputError(f"{len(scores)} videos with scores, {len(truth)} with truth; expected as many, at least 1")
        for number, (s, t) in enumerate(zip(scores, truth, strict=True)):
            if len(s) != len(t):
                raise InputError(f"video {number}: {len(s)} scores for {len(t)} frames; expected one for each frame")
        values = np.concatenate([np.asarray(s, np.float64) for s in scores])
        if np.isnan(values).any():
            raise InputError("a score is not a number; expected finite scores")
        positive = np.concatenate([np.asarray(t) != 0 for t in truth])
        video = np.repeat(np.arange(len(scores)), [len(s) for s in scores])
        _, rank = np.unique(-values, return_inverse=True)
        group, place = np.unique(rank * len(scores) + video, return_inverse=True)
        counts = [np.bincount(place[keep], minlength=len(group)) for keep in (positive, ~positive)]
        first = np.flatnonzero(np.diff(group // len(scores), prepend=-1))
        return cls(group % len(scores), *counts, first=first, videos=len(scores))

    def roc_auc(self, weight: np.ndarray | None = None) -> float:
        """Share of pairs of a positive and a negative frame in which the positive one has the higher score.

        Args:
            weight: int64 (videos,), how often each video counts; by default once.

        Returns:
            0 to 1; NaN without a positive or without a negative frame.
        """
        positive, negative = self._counts(weight)
        pairs = int(positive.sum()) * int(negative.sum())
        if not pairs:
            return float("nan")
        below = negative.sum() - np.cumsum(negative)
        # twice the number of pairs, a tie counting one: an exact integer up to 2^62
        return int((positive * (2 * below + negative)).sum()) / (2 * pairs)

    def average_precision(self, weight: np.ndarray | None = None) -> float:
        """Mean over the positive frames of the precision at their score, frames of equal score included.

        Args:
            weight: see ``roc_auc``.

        Returns:
            0 to 1; NaN without a positive frame.
        """
        positive, negative = self._counts(weight)
        found = np.cumsum(positive)
        if not len(found) or not found[-1]:
            return float("nan")
        kept = positive > 0
        precision = found[kept] / (found[kept] + np.cumsum(negative)[kept])
        return float((positive[kept] * precision).sum() / found[-1])

    def _counts(self, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """int64 (S,) each: positive and negative frames of every distinct score."""
        if weight is None:
            parts = self.positive, self.negative
        else:
            times = weight[self.video]
            parts = times * self.positive, times * self.negative
        return np.add.reduceat(parts[0], self.first), np.add.reduceat(parts[1], self.first)


@dataclass(frozen=True)
class RankingScore:
    """Both measures with their intervals.

    Attributes:
        roc_auc, average_precision: of a model, or differences of two.
    """

    roc_auc: Interval
    average_precision: Interval


def bootstrap(
    curves: Sequence[FrameScores], *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> RankingScore:
    """Mean measures with percentile intervals, videos drawn with replacement, the same ones for all curves.

    Args:
        curves: one a seed; all of the same videos in the same order.
        samples: number of resamples.
        seed: of the draws.
        level: of the interval.

    Raises:
        InputError: they are not of as many videos.
    """
    return _score(curves, samples, seed, level, lambda values: float(np.mean(values)))


def bootstrap_difference(
    first: Sequence[FrameScores],
    second: Sequence[FrameScores],
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> RankingScore:
    """Mean measure of ``second`` minus that of ``first``; every resample draws the same videos for all.

    The interval is over videos, with the trained heads as they are; what another seed would give is not in it.

    Args:
        first, second: one entry a seed; all of the same videos in the same order.
        samples, seed, level: see ``bootstrap``.

    Raises:
        InputError: they are not of as many videos.
    """
    n = len(first)
    return _score(
        [*first, *second], samples, seed, level, lambda values: float(np.mean(values[n:]) - np.mean(values[:n]))
    )


def _score(curves: Sequence[FrameScores], samples: int, seed: int, level: float, combine) -> RankingScore:
    """``combine`` of the curves' measures, on all videos and on resamples."""
    if len({curve.videos for curve in curves}) != 1:
        raise InputError("the curves are of different numbers of videos; expected the same videos in the same order")
    measures = (FrameScores.roc_auc, FrameScores.average_precision)
    whole = [combine([measure(curve) for curve in curves]) for measure in measures]
    draw, found = np.random.default_rng(seed), np.empty((samples, 2))
    for row in range(samples):
        weight = np.bincount(draw.integers(curves[0].videos, size=curves[0].videos), minlength=curves[0].videos)
        found[row] = [combine([measure(curve, weight) for curve in curves]) for measure in measures]
    return RankingScore(*(_interval(value, column, level) for value, column in zip(whole, found.T, strict=True)))


def _interval(value: float, found: np.ndarray, level: float) -> Interval:
    found = found[np.isfinite(found)]
    ends = (float("nan"), float("nan"))
    if len(found) > 1:
        low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
        ends = (float(low), float(high))
    return Interval(value, *ends, len(found))

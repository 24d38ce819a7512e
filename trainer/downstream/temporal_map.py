"""Mean average precision of temporal localisation, by the algorithm of ActivityNet's evaluation.

For one class and one threshold of temporal IoU: detections by falling score; each takes the truth segment of its video
with the highest IoU of at least the threshold that no earlier detection has taken, and is right; without one it is
wrong. So a second detection of one segment is wrong, but may take another segment that it also overlaps. Average
precision is the area under precision over recall, precision made falling. Corner cases, as there:

- a class without detections has average precision 0, and counts in the mean over classes;
- a class without truth does not count; its detections are ignored, and counted;
- an IoU equal to the threshold suffices.

Where the original leaves the order to its sorting algorithm, this one fixes it: detections of equal score come in the
order given, and of segments with equal IoU the first given is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...pipeline.errors import InputError

# Choi et al. report .1 to .7, ActionFormer and its successors .3 to .7, ActivityNet .5 to .95
THUMOS_ALL = tuple(k / 10 for k in range(1, 8))
THUMOS_UPPER = tuple(k / 10 for k in range(3, 8))
ACTIVITYNET = tuple(k / 100 for k in range(50, 100, 5))


@dataclass(frozen=True)
class Segments:
    """N segments.

    Attributes:
        video: N names.
        label: N class names.
        start, end: float64 (N,), seconds.
        score: float64 (N,), higher is surer; None for truth.
    """

    video: Sequence[str]
    label: Sequence[str]
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray | None = None

    def __post_init__(self):
        columns = [self.video, self.label, self.start, self.end, *([] if self.score is None else [self.score])]
        if len({len(column) for column in columns}) != 1:
            raise InputError(f"segments: columns of {', '.join(str(len(c)) for c in columns)} rows; expected as many")
        for number, (start, end) in enumerate(zip(self.start, self.end, strict=True)):
            if not start < end or not np.isfinite([start, end]).all():  # NaN, too
                raise InputError(
                    f"segment {number} of {self.video[number]}: from {start} to {end} s; expected a start before an end"
                )
        if self.score is not None and np.isnan(self.score).any():
            raise InputError("segments: a score is not a number; expected finite scores")

    def __len__(self) -> int:
        return len(self.video)


@dataclass(frozen=True)
class MeanAveragePrecision:
    """The result.

    Attributes:
        classes: C names, those with truth, sorted.
        thresholds: K of temporal IoU.
        table: float64 (C, K), average precision, 0 to 1.
        ignored: detections of classes without truth.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    table: np.ndarray
    ignored: int

    def at(self) -> np.ndarray:
        """float64 (K,): the mean over classes, at each threshold."""
        return self.table.mean(0)

    def average(self, thresholds: Sequence[float]) -> float:
        """The mean over some of the thresholds.

        Raises:
            InputError: one of them was not evaluated.
        """
        missing = next((t for t in thresholds if t not in self.thresholds), None)
        if missing is not None:
            raise InputError(f"tIoU {missing} was not evaluated; expected of {', '.join(map(str, self.thresholds))}")
        return float(self.at()[[self.thresholds.index(t) for t in thresholds]].mean())


@dataclass(frozen=True)
class MatchedClass:
    """Detections of one class by falling score, each right or wrong at every threshold.

    Attributes:
        right: bool (K,N).
        video: int64 (N,), the video of each.
        truth: int64 (M,), the video of each truth segment.
    """

    right: np.ndarray
    video: np.ndarray
    truth: np.ndarray

    def average_precision(self, times: np.ndarray | None = None) -> np.ndarray:
        """float64 (K,).

        Args:
            times: int64 (videos,), how often each video counts; by default once. A video that counts twice is as two
                with the same truth and detections. NaN where no truth is left.
        """
        each = np.ones(len(self.video), np.int64) if times is None else times[self.video]
        truth = len(self.truth) if times is None else int(times[self.truth].sum())
        if not truth:
            return np.full(len(self.right), np.nan)
        return np.array([_area(row, each, truth) for row in self.right])


def mean_average_precision(
    truth: Segments, found: Segments, thresholds: Sequence[float] = THUMOS_ALL
) -> MeanAveragePrecision:
    """Evaluate detections.

    Args:
        truth: what is there.
        found: what was detected, with scores.
        thresholds: of temporal IoU.

    Raises:
        InputError: there is no truth, or detections have no scores.
    """
    matched = match(truth, found, thresholds)
    ignored = len(found) - sum(len(own.video) for own in matched.values())
    table = np.array([own.average_precision() for own in matched.values()])
    return MeanAveragePrecision(tuple(matched), tuple(thresholds), table, ignored)


def match(
    truth: Segments, found: Segments, thresholds: Sequence[float], videos: Sequence[str] | None = None
) -> dict[str, MatchedClass]:
    """Class with truth -> its detections; classes are sorted.

    Args:
        truth, found, thresholds: see ``mean_average_precision``.
        videos: names that videos are numbered by; by default all that occur, sorted.

    Raises:
        InputError: see ``mean_average_precision``.
    """
    if not len(truth):
        raise InputError("no truth segments; expected at least one")
    if found.score is None:
        raise InputError("detections have no scores; expected one for each")
    names = sorted({*truth.video, *found.video}) if videos is None else videos
    number = {name: k for k, name in enumerate(names)}
    rows: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in sorted(set(truth.label))}
    for row, name in enumerate(truth.label):
        rows[name][0].append(row)
    for row, name in enumerate(found.label):
        if name in rows:
            rows[name][1].append(row)
    limits = np.asarray(thresholds, np.float64)
    matched = {}
    for name, (truth_rows, found_rows) in rows.items():
        right, order = _right(truth, truth_rows, found, found_rows, limits)
        of_found, of_truth = (
            [number[side.video[row]] for row in some] for side, some in ((found, order), (truth, truth_rows))
        )
        matched[name] = MatchedClass(right, np.array(of_found, np.int64), np.array(of_truth, np.int64))
    return matched


def _right(
    truth: Segments, truth_rows: Sequence[int], found: Segments, found_rows: Sequence[int], thresholds: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Detections of one class by falling score, and bool (K,N), which are right."""
    assert found.score is not None
    of_video: dict[str, list[int]] = {}
    for place, row in enumerate(truth_rows):
        of_video.setdefault(truth.video[row], []).append(place)
    start, end = truth.start[list(truth_rows)], truth.end[list(truth_rows)]
    taken = np.zeros((len(thresholds), len(truth_rows)), bool)
    rows = np.asarray(found_rows, np.int64)
    rows = rows[np.argsort(-found.score[rows], kind="stable")]
    right = np.zeros((len(thresholds), len(rows)), bool)
    for column, row in enumerate(map(int, rows)):
        places = np.array(of_video.get(found.video[row], ()), np.int64)
        overlap = temporal_iou(float(found.start[row]), float(found.end[row]), start[places], end[places])
        order = np.argsort(-overlap, kind="stable")
        free = (overlap[order] >= thresholds[:, None]) & ~taken[:, places[order]]
        hit = np.flatnonzero(free.any(1))
        if len(hit):
            taken[hit, places[order[free[hit].argmax(1)]]] = True
            right[hit, column] = True
    return right, rows.tolist()


def temporal_iou(start: float, end: float, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """float64 (N,): intersection over union of one segment with N others; all times in one unit."""
    shared = (np.minimum(end, ends) - np.maximum(start, starts)).clip(0)
    return shared / ((ends - starts) + (end - start) - shared)


def _area(right: np.ndarray, times: np.ndarray, truth: int) -> float:
    """Area under the falling envelope of precision over recall.

    Args:
        right: bool (N,), by falling score.
        times: int64 (N,), how often each detection is there.
        truth: number of truth segments.
    """
    gain, shown = times * right, np.cumsum(times)
    precision = np.cumsum(gain) / np.maximum(shown, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((gain * envelope).sum() / truth)

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
    if not len(truth):
        raise InputError("no truth segments; expected at least one")
    if found.score is None:
        raise InputError("detections have no scores; expected one for each")
    classes = sorted(set(truth.label))
    rows = {name: ([], []) for name in classes}
    for number, name in enumerate(truth.label):
        rows[name][0].append(number)
    ignored = 0
    for number, name in enumerate(found.label):
        if name in rows:
            rows[name][1].append(number)
        else:
            ignored += 1
    limits = np.asarray(thresholds, np.float64)
    table = [average_precision(truth, rows[name][0], found, rows[name][1], limits) for name in classes]
    return MeanAveragePrecision(tuple(classes), tuple(thresholds), np.array(table), ignored)


def average_precision(
    truth: Segments, truth_rows: Sequence[int], found: Segments, found_rows: Sequence[int], thresholds: np.ndarray
) -> np.ndarray:
    """float64 (K,): average precision of one class; the rows of both sides are those of the class."""
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
    return np.array([_area(row, len(truth_rows)) for row in right])


def temporal_iou(start: float, end: float, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """float64 (N,): intersection over union of one segment with N others; all times in one unit."""
    shared = (np.minimum(end, ends) - np.maximum(start, starts)).clip(0)
    return shared / ((ends - starts) + (end - start) - shared)


def _area(right: np.ndarray, truth: int) -> float:
    """Area under the falling envelope of precision over recall; ``right`` is bool (N,), by falling score."""
    found = np.cumsum(right)
    precision = found / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / truth)

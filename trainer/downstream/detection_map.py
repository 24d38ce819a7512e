"""Frame-mAP and video-mAP of spatio-temporal detection.

Detections of one class are taken by falling score. Of the truth in its frame (or video) each takes one that it overlaps
by at least the threshold, and is right; without one it is wrong. Two sets of rules are in use:

    act      the truth that it overlaps most among what no earlier detection has taken; average precision is the area
             under straight lines between the points of precision over recall, from (recall 0, precision 1) on. The code
             of the ACT detector, by which results on UCF101-24 and JHMDB are published
    pascal   the truth that it overlaps most; if an earlier detection has taken it, the detection is wrong; average
             precision is the area under precision made falling. AVA's code

The overlap of two tubes is the sum of their boxes' intersection over union over common frames, by the number of frames
that either has: the product of the spatial and the temporal overlap of the ACT detector's code, which adds one pixel to
the sides of boxes, as this does not. A class without detections has average precision 0; one without truth does not
count. Detections of equal score come in the order given; of equal overlaps the first truth given is taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...pipeline.errors import InputError
from .detection.tubes import Tube, box_iou
from .ranking import Interval

Rules = Literal["act", "pascal"]
COCO = tuple(k / 100 for k in range(50, 100, 5))
THRESHOLDS = (0.2, *COCO)


@dataclass(frozen=True)
class Matches:
    """The detections of one class, by falling score.

    Attributes:
        right: bool (K, N), at each threshold.
        video: int64 (N,), place of the detection's video in ``DetectionMap.videos``; V where it has no truth.
        truth: int64 (V + 1,), boxes or tubes of each video that are there; the last is 0.
    """

    right: np.ndarray
    video: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class DetectionMap:
    """The result.

    Attributes:
        classes: C names, those with truth, sorted.
        thresholds: K of intersection over union.
        table: float64 (C, K), average precision, 0 to 1.
        ignored: detections of classes without truth.
        rules: by which it was computed.
        videos: V names, sorted: those with truth.
        matches: of each class.
    """

    classes: tuple[str, ...]
    thresholds: tuple[float, ...]
    table: np.ndarray
    ignored: int
    rules: Rules
    videos: tuple[str, ...]
    matches: tuple[Matches, ...]

    def at(self, threshold: float) -> float:
        """Mean over classes at one threshold."""
        return float(self.table[:, self.thresholds.index(threshold)].mean())

    def average(self) -> float:
        """Mean over classes and over the thresholds .5, .55, ... .95."""
        return float(self.table[:, [self.thresholds.index(t) for t in COCO]].mean())

    def weighted(self, threshold: float, weight: np.ndarray) -> float:
        """Mean over the classes with truth, video v counted ``weight[v]`` times, int64 (V + 1,); NaN without any."""
        k, area = self.thresholds.index(threshold), _AREAS[self.rules]
        found = [
            area(match.right[k], int((weight * match.truth).sum()), weight[match.video])
            for match in self.matches
            if (weight * match.truth).any()
        ]
        return float(np.mean(found)) if found else float("nan")


@dataclass(frozen=True)
class _Places:
    """What is compared: the truth and the detections of one class.

    Attributes:
        truth_place, found_place: the frame or video of each.
        score: float64, of the detections.
        overlap: (row of a detection, int64 rows of truth) -> float64.
    """

    truth_place: Sequence[object]
    found_place: Sequence[object]
    score: np.ndarray
    overlap: Callable[[int, np.ndarray], np.ndarray]


def frame_map(
    truth: Sequence[Tube], found: Sequence[Tube], rules: Rules = "act", thresholds: Sequence[float] = THRESHOLDS
) -> DetectionMap:
    """Mean average precision over single boxes.

    Args:
        truth: what is there, with labels; scores are not read.
        found: detections with labels; a box counts by its own score.
        rules, thresholds: see the top of this module.

    Raises:
        InputError: there is no truth, or a score is not a number.
    """

    def compare(truth: list[Tube], found: list[Tube]) -> _Places:
        boxes, others = (
            np.concatenate([tube.boxes for tube in tubes]) if tubes else np.empty((0, 4)) for tubes in (found, truth)
        )
        return _Places(
            [(tube.video, frame) for tube in truth for frame in tube.frames.tolist()],
            [(tube.video, frame) for tube in found for frame in tube.frames.tolist()],
            np.concatenate([tube.scores for tube in found]) if found else np.empty(0),
            lambda row, rows: box_iou(boxes[row], others[rows]),
        )

    return _evaluate(truth, found, compare, rules, thresholds)


def video_map(
    truth: Sequence[Tube], found: Sequence[Tube], rules: Rules = "act", thresholds: Sequence[float] = THRESHOLDS
) -> DetectionMap:
    """Mean average precision over tubes; a tube counts by the mean score of its boxes. See ``frame_map``."""

    def compare(truth: list[Tube], found: list[Tube]) -> _Places:
        return _Places(
            [tube.video for tube in truth],
            [tube.video for tube in found],
            np.array([tube.scores.mean() for tube in found]),
            lambda row, rows: np.array([tube_iou(found[row], truth[k]) for k in rows.tolist()]),
        )

    return _evaluate(truth, found, compare, rules, thresholds)


def tube_iou(a: Tube, b: Tube) -> float:
    """Overlap of two tubes, 0 to 1; see the top of this module."""
    _, of_a, of_b = np.intersect1d(a.frames, b.frames, assume_unique=True, return_indices=True)
    shared = sum(float(box_iou(a.boxes[k], b.boxes[m : m + 1])[0]) for k, m in zip(of_a, of_b, strict=True))
    return shared / (len(a) + len(b) - len(of_a))


def _evaluate(
    truth: Sequence[Tube],
    found: Sequence[Tube],
    compare: Callable[[list[Tube], list[Tube]], _Places],
    rules: Rules,
    thresholds: Sequence[float],
) -> DetectionMap:
    if not truth:
        raise InputError("no truth boxes; expected at least one tube")
    if any(np.isnan(tube.scores).any() for tube in found):
        raise InputError("a score is not a number; expected finite scores")
    classes, videos = sorted({tube.label for tube in truth}), sorted({tube.video for tube in truth})
    limits = np.asarray(thresholds, np.float64)
    table, matches = [], []
    for name in classes:
        own = [[tube for tube in tubes if tube.label == name] for tubes in (truth, found)]
        matches.append(matched(compare(*own), limits, rules, videos))
        table.append([_AREAS[rules](row, int(matches[-1].truth.sum())) for row in matches[-1].right])
    ignored = sum(tube.label not in set(classes) for tube in found)
    return DetectionMap(
        tuple(classes), tuple(thresholds), np.array(table), ignored, rules, tuple(videos), tuple(matches)
    )


def matched(places: _Places, thresholds: np.ndarray, rules: Rules, videos: Sequence[str]) -> Matches:
    """Which detections of one class are right, at each threshold; those in videos without truth count as wrong."""
    rows_at: dict[object, list[int]] = {}
    for row, place in enumerate(places.truth_place):
        rows_at.setdefault(place, []).append(row)
    order = np.argsort(-places.score, kind="stable")
    taken = np.zeros((len(thresholds), len(places.truth_place)), bool)
    right = np.zeros((len(thresholds), len(order)), bool)
    for column, found in enumerate(order.tolist()):
        rows = np.array(rows_at.get(places.found_place[found], ()), np.int64)
        if not len(rows):
            continue
        overlap = places.overlap(found, rows)
        if rules == "pascal":
            best = np.full(len(thresholds), overlap.argmax())
        else:
            best = np.where(taken[:, rows], -1.0, overlap).argmax(1)
        hit = np.flatnonzero((overlap[best] >= thresholds) & ~taken[np.arange(len(thresholds)), rows[best]])
        taken[hit, rows[best[hit]]] = True
        right[hit, column] = True
    number = {name: n for n, name in enumerate(videos)}
    video = np.array([number.get(_video_of(places.found_place[row]), len(videos)) for row in order.tolist()], np.int64)
    there = np.array([number[_video_of(place)] for place in places.truth_place], np.int64)
    return Matches(right, video, np.bincount(there, minlength=len(videos) + 1))


def bootstrap(first: DetectionMap, second: DetectionMap, threshold: float, samples: int, seed: int = 0) -> Interval:
    """Difference of the mean average precision of two models, second minus first, on the same truth.

    The 95 % interval draws videos with replacement, the same for both: boxes of one video are no independent samples.

    Args:
        first, second: results on the same truth.
        threshold: one of theirs.
        samples, seed: of the draws.
    """
    random, count = np.random.default_rng(seed), len(first.videos)
    found = []
    for _ in range(samples):
        # the last place is of detections in videos without truth: they count once in every sample
        weight = np.append(np.bincount(random.integers(0, count, count), minlength=count), 1)
        found.append(second.weighted(threshold, weight) - first.weighted(threshold, weight))
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(second.at(threshold) - first.at(threshold), float(low), float(high), samples)


def _video_of(place: object) -> str:
    return str(place[0] if isinstance(place, tuple) else place)


def _under_envelope(right: np.ndarray, truth: int, weight: np.ndarray | None = None) -> float:
    """Area under precision over recall, precision made falling.

    Args:
        right: bool (N,), by falling score.
        truth: how many there are.
        weight: int64 (N,), how often each detection counts; by default once.
    """
    weight = np.ones(len(right), np.int64) if weight is None else weight
    precision = np.cumsum(right * weight) / np.maximum(np.cumsum(weight), 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * weight)[right].sum() / truth)


def _under_lines(right: np.ndarray, truth: int, weight: np.ndarray | None = None) -> float:
    """Area under straight lines between the points of precision over recall, from (0, 1) on; see above."""
    weight = np.ones(len(right), np.int64) if weight is None else weight
    counted = np.cumsum(weight)
    precision = np.where(counted > 0, np.cumsum(right * weight) / np.maximum(counted, 1), 1.0)
    precision = np.concatenate([[1.0], precision])
    return float(((precision[1:] + precision[:-1]) * weight)[right].sum() / 2 / truth)


_AREAS = {"act": _under_lines, "pascal": _under_envelope}

"""Frame-mAP and video-mAP against a brute force written from their definitions, and corner cases by hand."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.downstream.detection.tubes import Tube
from unstill.trainer.downstream.detection_map import COCO, bootstrap, frame_map, tube_iou, video_map

THRESHOLDS = (0.2, 0.5, 0.75)
BOX = (0.0, 0.0, 1.0, 1.0)


def tube(video="v", label="a", frames=(0,), boxes=None, scores=None):
    boxes = [BOX] * len(frames) if boxes is None else boxes
    scores = np.ones(len(frames)) if scores is None else scores
    return Tube(video, label, np.array(frames), np.array(boxes, np.float64), np.array(scores, np.float64))


def plain_iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


def plain_tube_iou(a, b):
    boxes = [dict(zip(t.frames.tolist(), t.boxes.tolist(), strict=True)) for t in (a, b)]
    shared = [plain_iou(boxes[0][f], boxes[1][f]) for f in sorted(boxes[0].keys() & boxes[1].keys())]
    return sum(shared) / len(boxes[0].keys() | boxes[1].keys())


def plain_ap(truth, found, iou, threshold, rules):
    """``truth``: (place, thing); ``found``: (place, thing, score). Recall and precision of prefixes, by counting."""
    taken, hits = set(), []
    for place, thing, _ in sorted(found, key=lambda item: -item[2]):
        there = [(iou(thing, other), -n) for n, (at, other) in enumerate(truth) if at == place]
        if rules == "act":
            there = [item for item in there if -item[1] not in taken]
        overlap, n = max(there, default=(-1.0, 0))
        hits.append(overlap >= threshold and -n not in taken)
        if hits[-1]:
            taken.add(-n)
    points = [(0.0, 1.0)]
    points += [(sum(hits[:k]) / len(truth), sum(hits[:k]) / k) for k in range(1, len(hits) + 1)]
    if rules == "act":
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    return sum(
        (b[0] - a[0]) * max(p for r, p in points[n + 1 :] if r >= b[0]) for n, (a, b) in enumerate(pairwise(points))
    )


def random_tubes(random, videos, labels, count, scored):
    found = []
    for _ in range(count):
        first, length = random.integers(0, 4), random.integers(1, 4)
        corner = random.integers(0, 3, (length, 2))
        boxes = np.hstack([corner, corner + random.integers(1, 4, (length, 2))])
        scores = random.integers(0, 4, length) / 4 if scored else None
        found.append(
            tube(str(random.choice(videos)), str(random.choice(labels)), range(first, first + length), boxes, scores)
        )
    return found


def expected(truth, found, kind, rules):
    table = []
    for label in sorted({t.label for t in truth}):
        own = [[t for t in tubes if t.label == label] for tubes in (truth, found)]
        if kind == "video":
            there = [(t.video, t) for t in own[0]]
            said = [(t.video, t, float(np.mean(t.scores))) for t in own[1]]
            iou = plain_tube_iou
        else:
            there = [
                ((t.video, f), b) for t in own[0] for f, b in zip(t.frames.tolist(), t.boxes.tolist(), strict=True)
            ]
            said = [
                ((t.video, f), b, s)
                for t in own[1]
                for f, b, s in zip(t.frames.tolist(), t.boxes.tolist(), t.scores.tolist(), strict=True)
            ]
            iou = plain_iou
        table.append([plain_ap(there, said, iou, threshold, rules) for threshold in THRESHOLDS])
    return np.array(table)


@pytest.mark.slow
@pytest.mark.parametrize("rules", ["act", "pascal"])
@pytest.mark.parametrize(("kind", "function"), [("frame", frame_map), ("video", video_map)])
def test_a_thousand_random_cases_equal_the_brute_force(kind, function, rules):
    random = np.random.default_rng(0)
    right = 0
    for _ in range(1000):
        videos, labels = "uv"[: random.integers(1, 3)], "ab"
        truth = random_tubes(random, list(videos), list(labels), random.integers(1, 5), False)
        found = random_tubes(random, list(videos), list("abc"), random.integers(0, 5), True)
        found += [replace(t, scores=random.integers(0, 4, len(t)) / 4) for t in truth if random.integers(2)]
        found = [found[k] for k in random.permutation(len(found))]
        result = function(truth, found, rules, THRESHOLDS)
        np.testing.assert_allclose(result.table, expected(truth, found, kind, rules), rtol=0, atol=1e-12)
        assert result.ignored == sum(t.label not in {x.label for x in truth} for t in found)
        right += result.table.max() > 0
    assert right > 300  # cases in which something is found


def test_perfect_detections_have_all_and_a_second_one_is_wrong():
    truth = [tube("v", "a", range(5)), tube("v", "b", range(3), [(2, 2, 3, 3)] * 3), tube("w", "a", range(2))]
    for function in (frame_map, video_map):
        result = function(truth, truth)
        assert result.at(0.5) == result.average() == 1.0 and len(result.thresholds) == 1 + len(COCO)
        assert function(truth, truth[:1]).at(0.5) == pytest.approx((5 / 7 if function is frame_map else 1 / 2) / 2)
    twice = [tube(scores=[0.9]), tube(scores=[0.8]), tube("w", scores=[0.7])]
    both = [tube(), tube("w")]
    assert video_map(both, twice, "pascal", (0.5,)).at(0.5) == pytest.approx((1 + 2 / 3) / 2)
    assert video_map(both, twice, "act", (0.5,)).at(0.5) == pytest.approx(1 / 2 + (1 / 2 + 2 / 3) / 2 / 2)


def test_the_rules_differ_where_two_people_overlap():
    boxes = [(0, 0, 10, 10), (0, 0, 10, 9)]
    truth = [tube(boxes=[box]) for box in boxes]
    found = [tube(boxes=boxes[:1], scores=[0.9]), tube(boxes=boxes[:1], scores=[0.8])]
    assert frame_map(truth, found, "act", (0.5,)).at(0.5) == 1.0  # the second one takes the other person
    assert frame_map(truth, found, "pascal", (0.5,)).at(0.5) == 0.5


def test_the_overlap_of_tubes_is_spatial_times_temporal():
    a, b = tube(frames=range(0, 10)), tube(frames=range(5, 15), boxes=[(0, 0, 1, 0.5)] * 10)
    assert tube_iou(a, b) == pytest.approx(0.5 * 5 / 15)
    assert tube_iou(a, tube(frames=range(20, 22))) == 0


@pytest.mark.parametrize("rules", ["act", "pascal"])
def test_the_interval_draws_videos(rules):
    videos = [f"v{n:02}" for n in range(20)]
    truth = [tube(v, label) for v in videos for label in "ab"]
    good = [replace(t, scores=np.array([0.5])) for t in truth]
    poor = [*good[: len(good) // 2], tube("w", "a", scores=[0.9])]  # half of the videos, and one where nothing is
    better, worse = (frame_map(truth, found, rules, (0.5,)) for found in (good, poor))
    weight = np.append(np.ones(20, np.int64), 1)
    assert worse.weighted(0.5, weight) == pytest.approx(worse.at(0.5), abs=1e-12)
    weight[:10] = 0  # of the videos that the poor one knows
    assert worse.weighted(0.5, weight) == 0 and better.weighted(0.5, weight) == 1
    gain = bootstrap(worse, better, 0.5, 200)
    assert gain.value == better.at(0.5) - worse.at(0.5) and 0.2 < gain.low < gain.value < gain.high < 0.9
    same = bootstrap(better, better, 0.5, 20)
    assert (same.low, same.high) == (0, 0)


def test_no_truth_and_scores_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="no truth boxes"):
        frame_map([], [tube()])
    with pytest.raises(InputError, match="not a number"):
        video_map([tube()], [tube(scores=[np.nan])])

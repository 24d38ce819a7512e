"""Ranking and localisation measures against plain loops that share no code with them, and their corner cases."""

import numpy as np
import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.downstream.ranking import FrameScores, bootstrap, bootstrap_difference
from unstill.trainer.downstream.temporal_map import (
    THUMOS_ALL,
    THUMOS_UPPER,
    Segments,
    match,
    mean_average_precision,
)


def plain_auc(scores, truth):
    pairs = [
        (p, n)
        for p, is_p in zip(scores, truth, strict=True)
        if is_p
        for n, q in zip(scores, truth, strict=True)
        if not q
    ]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def plain_ap(scores, truth):
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [t for s, t in zip(scores, truth, strict=True) if s >= threshold]
        recall = sum(chosen) / sum(truth)
        total += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return total


def random_videos(g):
    lengths = g.integers(1, 9, size=g.integers(1, 6))
    levels = int(g.integers(1, 12))  # few levels: many ties, within and across videos
    scores = [g.integers(levels, size=n) / 7 for n in lengths]
    truth = [g.random(n) < g.random() for n in lengths]
    return scores, truth


def test_auc_and_ap_equal_plain_loops_on_1000_cases_with_ties_and_repeated_videos():
    g, scored = np.random.default_rng(0), 0
    while scored < 1000:
        scores, truth = random_videos(g)
        weight = g.integers(0, 3, size=len(scores))
        many_scores = np.concatenate([np.tile(s, w) for s, w in zip(scores, weight, strict=True)]).tolist()
        many_truth = np.concatenate([np.tile(t, w) for t, w in zip(truth, weight, strict=True)]).tolist()
        curve = FrameScores.of(scores, truth)
        if 0 < sum(many_truth) < len(many_truth):
            assert abs(curve.roc_auc(weight) - plain_auc(many_scores, many_truth)) < 1e-12
            scored += 1
        if sum(many_truth):
            assert abs(curve.average_precision(weight) - plain_ap(many_scores, many_truth)) < 1e-12
        else:
            assert np.isnan(curve.average_precision(weight))
        if sum(many_truth) in (0, len(many_truth)):
            assert np.isnan(curve.roc_auc(weight))


def test_the_interval_draws_videos_not_frames():
    g = np.random.default_rng(1)
    truth = [np.arange(400) < 200] * 30
    scores = [t * 0.5 + g.normal() + 0.1 * g.normal(size=400) for t in truth]  # one offset a video
    curve = FrameScores.of(scores, truth)
    auc = bootstrap([curve], samples=200).roc_auc
    frames = FrameScores.of([s for v in scores for s in v[:, None]], [t for v in truth for t in v[:, None]])
    of_frames = bootstrap([frames], samples=50).roc_auc
    assert auc.low < auc.value < auc.high and auc.samples == 200
    assert auc.value == of_frames.value
    assert auc.high - auc.low > 2 * (of_frames.high - of_frames.low)


def test_a_difference_draws_the_same_videos_for_both():
    g = np.random.default_rng(2)
    truth = [g.random(50) < 0.5 for _ in range(20)]
    scores = [t + 2 * g.normal() + g.normal(size=50) for t in truth]
    same = FrameScores.of(scores, truth)
    nothing = bootstrap_difference([same, same], [same], samples=50)
    assert nothing.roc_auc.value == nothing.roc_auc.low == nothing.roc_auc.high == 0
    better = FrameScores.of([s + t for s, t in zip(scores, truth, strict=True)], truth)
    gain = bootstrap_difference([same], [better], samples=200).roc_auc
    assert gain.low > 0


def test_scores_that_cannot_be_ranked_are_refused():
    with pytest.raises(InputError, match="3 scores for 2 frames"):
        FrameScores.of([np.zeros(3)], [np.zeros(2)])
    with pytest.raises(InputError, match="not a number"):
        FrameScores.of([np.array([0.0, np.nan])], [np.array([0, 1])])


def plain_map(truth, found, threshold):
    """ActivityNet's evaluation in plain loops: truth (video, label, start, end), found with a score."""
    values = []
    for name in sorted({row[1] for row in truth}):
        own = [row for row in truth if row[1] == name]
        ranked = sorted((row for row in found if row[1] == name), key=lambda row: -row[4])
        free, outcomes = list(range(len(own))), []
        for video, _, start, end, _ in ranked:
            best, best_iou = None, 0.0
            for k in free:
                if own[k][0] == video:
                    inside = max(0.0, min(end, own[k][3]) - max(start, own[k][2]))
                    iou = inside / ((own[k][3] - own[k][2]) + (end - start) - inside)
                    if iou >= threshold and (best is None or iou > best_iou):
                        best, best_iou = k, iou
            outcomes.append(best is not None)
            if best is not None:
                free.remove(best)
        recall = [sum(outcomes[: k + 1]) / len(own) for k in range(len(outcomes))]
        precision = [sum(outcomes[: k + 1]) / (k + 1) for k in range(len(outcomes))]
        area = 0.0
        for k in range(len(outcomes)):
            before = recall[k - 1] if k else 0.0
            area += (recall[k] - before) * max(precision[k:])
        values.append(area)
    return sum(values) / len(values)


def segments(rows):
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), (), ()]
    arrays = [np.array(column, np.float64) for column in columns[2:]]
    return Segments(columns[0], columns[1], *arrays)


def random_segments(g, count, classes, scored):
    rows = []
    for _ in range(count):
        start = int(g.integers(0, 12))
        row = (f"v{g.integers(3)}", f"c{g.integers(classes)}", start, start + int(g.integers(1, 8)))
        rows.append((*row, int(g.integers(6)) / 3) if scored else row)
    return rows


def test_map_equals_a_plain_loop_on_1000_cases_with_ties_duplicates_and_empty_classes():
    g, some = np.random.default_rng(3), 0
    for _ in range(1000):
        truth = random_segments(g, int(g.integers(1, 10)), 3, False)
        found = random_segments(g, int(g.integers(0, 14)), 4, True)
        found += [found[k] for k in range(0, len(found), 4)]  # duplicates
        result = mean_average_precision(segments(truth), segments(found))
        column = int(g.integers(len(THUMOS_ALL)))  # one of the seven: the loop is slow
        assert abs(result.at()[column] - plain_map(truth, found, THUMOS_ALL[column])) < 1e-12
        assert result.ignored == sum(row[1] not in {t[1] for t in truth} for row in found)
        some += result.at()[0] > 0
    assert some > 300


def test_corner_cases_of_the_published_algorithm():
    truth = segments([("v", "a", 0, 10), ("v", "b", 0, 10)])
    perfect = mean_average_precision(truth, segments([("v", "a", 0, 10, 0.9), ("v", "b", 0, 10, 0.1)]))
    assert (perfect.table == 1).all()
    no_b = mean_average_precision(truth, segments([("v", "a", 0, 10, 0.9)]))
    assert no_b.at().tolist() == [0.5] * 7  # a class without detections counts 0
    twice = [("v", "a", 0, 10, 0.9), ("v", "a", 0, 10, 0.8), ("w", "a", 0, 10, 0.7)]
    two = segments([("v", "a", 0, 10), ("w", "a", 0, 10)])
    result = mean_average_precision(two, segments(twice))  # right, duplicate, right: 1/2 + 1/2 * 2/3
    assert result.table[0] == pytest.approx([5 / 6] * 7, abs=1e-15)
    edge = mean_average_precision(segments([("v", "a", 0, 10)]), segments([("v", "a", 0, 5, 1.0)]), (0.5, 0.51))
    assert edge.table[0].tolist() == [1, 0]  # an IoU equal to the threshold suffices
    assert no_b.average(THUMOS_UPPER) == 0.5
    with pytest.raises(InputError, match="was not evaluated"):
        edge.average(THUMOS_UPPER)


def test_equal_segments_and_a_second_best_one():
    two = segments([("v", "a", 0, 10), ("v", "a", 0, 10)])  # the same segment twice in the truth: both can be found
    found = [("v", "a", 0, 10, 0.9), ("v", "a", 0, 10, 0.9), ("v", "a", 0, 10, 0.9)]
    assert mean_average_precision(two, segments(found)).table[0].tolist() == [1.0] * 7
    near = segments(
        [("v", "a", 0, 10), ("v", "a", 2, 12)]
    )  # the second detection fits the first better, but it is taken
    result = mean_average_precision(near, segments([("v", "a", 0, 10, 0.9), ("v", "a", 0, 11, 0.8)]), (0.5, 0.8))
    assert result.table[0].tolist() == [1.0, 0.5]


def test_a_video_that_counts_twice_is_as_two_equal_ones():
    g = np.random.default_rng(6)
    for _ in range(200):
        truth, found = random_segments(g, int(g.integers(1, 10)), 2, False), random_segments(g, 12, 2, True)
        found = sorted(found, key=lambda row: (-row[4], row[0]))  # equal scores: copies of a video stay together
        times = g.integers(0, 4, 3)
        copies = [
            [(f"{row[0]}_{k}", *row[1:]) for row in rows for k in range(times[int(row[0][1])])]
            for rows in (truth, found)
        ]
        for name, own in match(segments(truth), segments(found), THUMOS_ALL, ("v0", "v1", "v2")).items():
            of_class = [[row for row in rows if row[1] == name] for rows in copies]
            if not of_class[0]:
                assert np.isnan(own.average_precision(times)).all()
                continue
            expected = mean_average_precision(segments(of_class[0]), segments(of_class[1])).table[0]
            assert own.average_precision(times) == pytest.approx(expected, abs=1e-12)


def test_reversed_segments_are_named():
    with pytest.raises(InputError, match=r"segment 1 of w: from 5\.0 to 5\.0 s"):
        segments([("v", "a", 0, 10), ("w", "a", 5, 5)])

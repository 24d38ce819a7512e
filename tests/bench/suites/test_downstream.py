"""The downstream benchmark: lists say when things happen, intervals draw videos."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unstill.bench.harness.downstream.anomaly import AnomalyWindows, anomaly_score
from unstill.bench.harness.downstream.detection import detection_scores
from unstill.bench.harness.downstream.localisation import localisation_score
from unstill.bench.harness.downstream.long_features import LongVideos, windows
from unstill.bench.suites.downstream import DownstreamBench, Scores, rows
from unstill.trainer.demo.motions.long_files import write_annotations
from unstill.trainer.demo.motions.long_videos import MOTIONS, LongMotionsConfig, plan
from unstill.trainer.downstream.anomaly.annotations import frame_truth, problem_of, read_train_list, read_truth
from unstill.trainer.downstream.localisation import annotations as actions


def made(folder, task):
    """Lists and annotations of a few videos, and what happens in them."""
    videos = LongVideos(folder, LongMotionsConfig(task=task, frames=160), train=12, test=6, window=8, stride=2)
    plans = {key: plan(videos.motions, split, index) for split, index, key in videos.videos()}
    write_annotations(folder, videos.motions, plans)
    return plans


def test_the_truth_of_anomalies_is_when_the_actor_turns(tmp_path):
    plans = made(tmp_path, "anomaly")
    train = read_train_list(tmp_path / "train.txt")
    assert [(video.video, video.abnormal) for video in train] == [
        (key, bool(happens.label)) for key, happens in plans.items() if key.startswith("train")
    ]
    truth = {video.video: video for video in read_truth(tmp_path / "truth.txt")}
    assert len(truth) == 12
    for key, video in truth.items():
        assert problem_of(video, 160, 8.0, 8.0, 8) is None
        turns = np.concatenate([[part.motion in (4, 5)] * (part.end - part.first) for part in plans[key].parts])
        assert np.array_equal(frame_truth(video, 160), turns)


def test_actions_are_annotated_from_border_to_border(tmp_path):
    plans = made(tmp_path, "localisation")
    for video in actions.read_annotations(tmp_path / "annotations.json"):
        assert actions.problem_of(video, 160, 8.0, 8) is None
        assert video.subset == ("validation" if video.video.startswith("train") else "test")
        expected = [part for part in plans[video.video].parts if part.motion is not None]
        assert [(MOTIONS.index(a.label), a.start * 8, a.end * 8) for a in video.actions] == expected


def test_windows_are_runs_of_frames():
    frames = np.random.default_rng(0).integers(0, 256, (21, 16, 16, 3), np.uint8)
    found = windows(frames, 8, 3, 16)
    assert found.shape == (5, 8, 16, 16, 3)
    assert all(torch.equal(found[k], torch.from_numpy(frames[3 * k : 3 * k + 8])) for k in range(5))
    assert windows(np.full((8, 16, 16, 3), 77, np.uint8), 8, 1, 8).unique().tolist() == [77]


def test_scores_of_a_split_are_of_its_videos_alone():
    truth = {"video": ["free_0000", "free_0001", "alike_0000"], "label": ["a", "a", "a"]}
    truth |= {"start": [0.0, 1.0, 2.0], "end": [3.0, 4.0, 5.0]}
    found = {**truth, "score": [0.5, 0.4, 0.9], "start": [0.0, 3.9, 2.0]}  # the second of free is missed
    score = localisation_score({"truth": truth, "found": found}, "free", 2)
    assert score(None) == 0.5
    assert score(np.array([2, 0])) == 1.0
    assert localisation_score({"truth": truth, "found": found}, "alike", 1)(None) == 1.0
    frames = {"free_0000": {"scores": [0.1, 0.9], "truth": [False, True]}}
    frames |= {
        "free_0001": {"scores": [0.95, 0.0], "truth": [False, False]},
        "alike_0000": {"scores": [1.0], "truth": [0]},
    }
    assert anomaly_score(frames, "free", 2)(None) == pytest.approx(2 / 3)
    assert anomaly_score(frames, "free", 2)(np.array([1, 0])) == 1.0
    without = [np.array([False, False]), np.array([True, False])]
    assert anomaly_score(frames, "free", 2, without)(None) == 1.0  # but for the frame that is ranked too high


def test_scores_of_detection_count_videos_as_often_as_they_are_drawn():
    box, frames = [[0.1, 0.1, 0.5, 0.5]], [3]
    tube = lambda video, label, score: {  # noqa: E731
        "video": f"{label}_{video}", "label": label, "frames": frames, "boxes": box, "scores": [score]
    }  # fmt: skip
    truth = [tube(f"{split}_000{k}", "up", 1.0) for split in ("free", "alike") for k in (0, 1)]
    found = [tube("free_0000", "up", 0.9), tube("alike_0001", "up", 0.9)]
    for measure, score in detection_scores({"truth": truth, "found": found}, "free", 2).items():
        assert measure.startswith("detection") and score(None) == 0.5
        assert score(np.array([2, 0])) == 1.0 and score(np.array([0, 2])) == 0.0


def test_windows_over_a_border_are_left_out():
    videos = LongVideos(Path("-"), LongMotionsConfig(task="anomaly", frames=160), train=1, test=6, window=8, stride=8)
    for index in range(6):
        inside, turns = AnomalyWindows(videos)._windows("free", index)
        parts = plan(videos.motions, "free", index).parts
        expected = {
            k: part.motion in (4, 5) for part in parts for k in range(20) if part.first <= 8 * k <= part.end - 8
        }
        assert dict(zip(inside.tolist(), turns.tolist(), strict=True)) == expected


def test_a_row_is_a_mean_over_seeds_and_its_difference_draws_the_same_videos():
    values = np.random.default_rng(1).random((2, 50))  # a measure that is a mean over videos, one set a seed
    scores = Scores(50)
    for seed in (0, 1):
        own = values[seed]
        mean = lambda times, own=own: float(np.average(own, weights=times))  # noqa: E731
        scores.add("baseline", seed, mean)
        scores.add("albar", seed, lambda times, mean=mean: mean(times) + 0.1)
    config = DownstreamBench(seeds=(0, 1), encoders=("baseline", "albar"), resamples=200)
    first, second = rows(config, "anomaly", "free", scores)
    assert first.value == pytest.approx(100 * values.mean())
    low, high = first.p20, first.p80
    assert low is not None and high is not None and low < values.mean() * 100 < high
    spread = values.std(axis=1) / np.sqrt(50) / np.sqrt(2)
    assert high - low == pytest.approx(2 * 1.96 * 100 * np.sqrt((spread**2).mean()), rel=0.25)
    assert second.facts["gain"] == pytest.approx(10) and second.facts["gain_high"] == pytest.approx(10, abs=1e-3)
    assert "gain" not in first.facts and first.role == "peer"

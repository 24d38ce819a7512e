"""One head after the other on each folder of features: scores of all test frames, measures, differences."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....pipeline.errors import InputError
from ....pipeline.loading.device import resolve_device
from ..feature_folder import RECORD, FeatureFolder, row_of_frame
from ..head_config import refuse_or_leave_out
from ..ranking import FrameScores, RankingScore, bootstrap, bootstrap_difference
from .annotations import AnnotatedVideo, TrainVideo, frame_truth, problem_of, read_train_list, read_truth
from .config import AnomalyConfig
from .heads import HEADS
from .training import read_bags, score_rows, train_head

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredVideos:
    """The test videos that can be scored in every folder.

    Attributes:
        videos: V of them.
        truth: bool (frames,) of each.
        left_out: "video: reason" of the others.
        cut: videos with an anomaly that was cut at their last frame.
    """

    videos: tuple[AnnotatedVideo, ...]
    truth: tuple[np.ndarray, ...]
    left_out: tuple[str, ...]
    cut: tuple[str, ...]


@dataclass(frozen=True)
class AnomalyResult:
    """Of one folder.

    Attributes:
        name: of the folder.
        scores: seed -> float64 (frames,) of each test video.
        per_seed: seed -> (ROC-AUC, average precision).
        measures: means over seeds, with intervals over videos.
        difference: to the first folder; None for that.
    """

    name: str
    scores: Mapping[int, Sequence[np.ndarray]]
    per_seed: Mapping[int, tuple[float, float]]
    measures: RankingScore
    difference: RankingScore | None


def run_anomaly(config: AnomalyConfig) -> tuple[ScoredVideos, list[AnomalyResult]]:
    """Train and measure.

    Raises:
        InputError: features or lists cannot be used; the message says which and why.
    """
    folders = [FeatureFolder.open(path, window=config.window, stride=config.stride) for path in config.features]
    names = folder_names(config.features)
    train, annotated = read_train_list(config.train_list), read_truth(config.truth)
    both = {video.video for video in train} & {video.video for video in annotated}
    if both:
        raise InputError(f"{config.truth}: {min(both)} is a training video, too ({len(both)} are); expected others")
    test = usable_videos(folders, annotated, config)
    results: list[AnomalyResult] = []
    curves: list[list[FrameScores]] = []
    for name, folder in zip(names, folders, strict=True):
        scores = _train_and_score(config, folder, train, test)
        curves.append([FrameScores.of(scores[seed], test.truth) for seed in config.seeds])
        per_seed = {
            seed: (curve.roc_auc(), curve.average_precision())
            for seed, curve in zip(config.seeds, curves[-1], strict=True)
        }
        measures = bootstrap(curves[-1], samples=config.resamples)
        difference = None
        if results:
            difference = bootstrap_difference(curves[0], curves[-1], samples=config.resamples)
        results.append(AnomalyResult(name, scores, per_seed, measures, difference))
    return test, results


def folder_names(paths: Sequence[Path]) -> list[str]:
    """What results call the folders: their names, or their paths where two have one name."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def usable_videos(
    folders: Sequence[FeatureFolder], videos: Sequence[AnnotatedVideo], config: AnomalyConfig
) -> ScoredVideos:
    """The test videos whose annotation fits their features in every folder, by the rules of ``--bad-annotations``.

    Raises:
        InputError: one does not and they are to be refused, too few are left, or folders disagree on a video's length.
    """
    for folder in folders:
        if not folder.videos:
            log.warning(
                "%s has no %s: its frame rate cannot be checked and is taken for that of --truth-fps, %g frames/s, a "
                "row of features for %d frames, every %d",
                *(folder.path, RECORD, config.truth_fps, folder.window, folder.stride),
            )
    kept, truth, bad, cut = [], [], [], []
    for video in videos:
        problem, frames = _facts_in_all(folders, video, config)
        if problem is not None:
            bad.append(f"{video.video}: {problem}")
            continue
        if any(last > frames for _, last in video.anomalies):
            cut.append(video.video)
        kept.append(video)
        truth.append(frame_truth(video, frames))
    refuse_or_leave_out(bad, f"{len(videos)} test videos", config.truth, config.bad_annotations)
    if cut:
        log.warning("%d anomalies end beyond their video and are cut there, first of %s", len(cut), cut[0])
    if not any(t.any() for t in truth) or all(t.all() for t in truth):
        raise InputError(f"{config.truth}: {len(kept)} videos are left; expected abnormal and normal frames among them")
    return ScoredVideos(tuple(kept), tuple(truth), tuple(bad), tuple(cut))


def _facts_in_all(
    folders: Sequence[FeatureFolder], video: AnnotatedVideo, config: AnomalyConfig
) -> tuple[str | None, int]:
    """What is wrong with a test video, and its number of frames."""
    frames = set()
    for folder in folders:
        key = folder.key_of(video.video)
        if key is None:
            return f"no features in {folder.path}", 0
        facts = folder.facts(key, folder.rows(key))
        problem = problem_of(video, facts.frames, facts.fps, config.truth_fps, folder.window)
        if problem is not None:
            return problem, facts.frames
        frames.add(facts.frames)
    if len(frames) > 1:
        return f"{' and '.join(map(str, sorted(frames)))} frames in different folders", 0
    return None, frames.pop()


def _train_and_score(
    config: AnomalyConfig, folder: FeatureFolder, train: Sequence[TrainVideo], test: ScoredVideos
) -> dict[int, list[np.ndarray]]:
    """Seed -> float64 (frames,) of each test video."""
    recipe, device = HEADS[config.head], resolve_device(config.device)
    abnormal, normal = read_bags(folder, train, recipe)
    heads = {
        seed: train_head(recipe, abnormal, normal, steps=config.steps, seed=seed, device=device)
        for seed in config.seeds
    }
    scores: dict[int, list[np.ndarray]] = {seed: [] for seed in config.seeds}
    for video, truth in zip(test.videos, test.truth, strict=True):
        key = folder.key_of(video.video)
        assert key is not None
        features = folder.read(key)
        if features.shape[2] != abnormal.shape[-1]:
            raise InputError(
                f"{folder.files[key]}: width {features.shape[2]}, of the training videos {abnormal.shape[-1]}"
            )
        rows = row_of_frame(len(truth), len(features), folder.window, folder.stride)
        for seed, head in heads.items():
            scores[seed].append(score_rows(head, recipe, features, device)[rows])
    return scores

"""Anomaly detection in long videos: when a clockwise or counter-clockwise turn happens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ....trainer.demo.motions.long_files import key_of
from ....trainer.demo.motions.long_videos import MOTIONS, TURNS, Split, plan
from ....trainer.downstream.anomaly.config import AnomalyConfig
from ....trainer.downstream.anomaly.evaluation import run_anomaly
from ....trainer.downstream.ranking import FrameScores
from ....trainer.evaluation.linear_probe import fit
from .task import ANOMALY_STEPS, OnLongVideos, Outcome, Score

WINDOW_PENALTY = 1e-3  # of the linear layer on windows, as in `unstill detect`


class Anomaly(OnLongVideos):
    """When something unusual happens, learned from labels of videos."""

    def outcome(self, encoder: str, run: Path) -> Outcome:
        """Test video -> scores of its frames, and which are abnormal."""
        config = AnomalyConfig(
            features=(self.folder / encoder,),
            train_list=self.folder / "train.txt",
            truth=self.folder / "truth.txt",
            truth_fps=self.videos.motions.fps,
            steps=ANOMALY_STEPS,
            seeds=(self.videos.motions.seed,),
            resamples=2,
            device="cpu",
        )
        test, (result,) = run_anomaly(config)
        (scores,) = result.scores.values()
        return {
            video.video: {"scores": score.tolist(), "truth": truth.tolist()}
            for video, score, truth in zip(test.videos, scores, test.truth, strict=True)
        }

    def scores(self, outcome: Outcome, split: str) -> dict[str, Score]:
        """ROC-AUC of all turns, and, where appearance is free, of those to either side without the others."""
        found = {"anomaly": anomaly_score(outcome, split, self.count)}
        if split == "free":
            for turn in TURNS:
                other = [self._frames_of(split, index, ({*TURNS} - {turn}).pop()) for index in range(self.count)]
                found[f"anomaly_{MOTIONS[turn]}"] = anomaly_score(outcome, split, self.count, other)
        return found

    def _frames_of(self, split: Split, index: int, motion: int) -> np.ndarray:
        """bool (frames,): when the actor of a video does something."""
        frames = np.zeros(self.videos.motions.frames, bool)
        for part in plan(self.videos.motions, split, index).parts:
            frames[part.first : part.end] |= part.motion == motion
        return frames


class AnomalyWindows(OnLongVideos):
    """Whether the features hold what is unusual: a linear layer learns it from windows with labels of their own."""

    @property
    def splits(self) -> Sequence[str]:
        """See ``Task``."""
        return ("free",)

    def outcome(self, encoder: str, run: Path) -> Outcome:
        """Test video -> log odds of its windows, and which are of a turn; windows over a border are left out."""
        values: dict[str, np.ndarray] = {}
        turns: dict[str, np.ndarray] = {}
        for split, index, key in self.videos.videos():
            rows = np.load(self.folder / encoder / f"{key}.npy", allow_pickle=False).astype(np.float64)
            inside, turns[key] = self._windows(split, index)
            values[key] = rows[inside]
        train = [key for key in values if key.startswith("train")]
        labels = np.concatenate([turns[key] for key in train]).astype(np.int64)
        probe = fit(np.concatenate([values[key] for key in train]), labels, 2, WINDOW_PENALTY)
        return {
            key: {"scores": (odds[:, 1] - odds[:, 0]).tolist(), "truth": turns[key].tolist()}
            for key in values
            if key not in train
            for odds in [probe.log_probabilities(values[key])]
        }

    def scores(self, outcome: Outcome, split: str) -> dict[str, Score]:
        """See ``Task``."""
        return {"anomaly_windows": anomaly_score(outcome, split, self.count)}

    def _windows(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(int64 (n,): windows in which one thing happens, bool (n,): whether it is a turn)."""
        motion = np.empty(self.videos.motions.frames, np.int64)
        for part in plan(self.videos.motions, split, index).parts:
            motion[part.first : part.end] = -1 if part.motion is None else part.motion
        shown = np.lib.stride_tricks.sliding_window_view(motion, self.videos.window)[:: self.videos.stride]
        inside = np.flatnonzero((shown == shown[:, :1]).all(1))
        return inside, np.isin(shown[inside, 0], list(TURNS))


def anomaly_score(outcome: Outcome, split: str, count: int, without: Sequence[np.ndarray] | None = None) -> Score:
    """ROC-AUC over all frames of a split, but for those that ``without``, bool (frames,) of each video, names."""
    own = [outcome[key_of(split, index)] for index in range(count)]
    keep = [slice(None)] * count if without is None else [~frames for frames in without]
    scores, truth = ([np.array(o[name])[k] for o, k in zip(own, keep, strict=True)] for name in ("scores", "truth"))
    return FrameScores.of(scores, truth).roc_auc

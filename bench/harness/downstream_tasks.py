"""The tasks of `unstill bench downstream`: what each makes of an encoder, and how that is scored.

A task's ``prepare`` makes videos and features of all encoders, ``outcome`` trains the head on those of one, ``scores``
measures one set of test videos.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...pipeline.conversion.convert import ConvertConfig, convert
from ...trainer.demo.motions.files import write_motions
from ...trainer.demo.motions.long_files import BOXES, FREE_AND_ALIKE, key_of, write_long_videos
from ...trainer.demo.motions.long_videos import MOTIONS, TURNS, Split, plan
from ...trainer.demo.motions.world import CLASSES, MotionsConfig
from ...trainer.diagnostics.clip_features import clip_features
from ...trainer.downstream.anomaly.config import AnomalyConfig
from ...trainer.downstream.anomaly.evaluation import run_anomaly
from ...trainer.downstream.detection.config import DetectConfig
from ...trainer.downstream.detection.evaluation import run_detect
from ...trainer.downstream.detection.tubes import Tube
from ...trainer.downstream.detection_map import frame_map, video_map
from ...trainer.downstream.localisation.config import LocaliseConfig
from ...trainer.downstream.localisation.evaluation import run_localise
from ...trainer.downstream.localisation.videos import truth_of
from ...trainer.downstream.ranking import FrameScores
from ...trainer.downstream.temporal_map import THUMOS_UPPER, Segments, match
from ...trainer.downstream.transfer.evaluation import known_by_probe
from ...trainer.evaluation.config import EvaluateOptions
from ...trainer.evaluation.derived_clips import as_filmed
from ...trainer.evaluation.linear_probe import fit
from ...trainer.evaluation.subject import load_subject
from .long_features import LongVideos, latest, made_of, write_features

# head settings, fixed on seed 50 and other encoders before the table's seeds were run
ANOMALY_STEPS, EPOCHS, RATE, CHANNELS = 500, 30, 4e-3, 64
WINDOW_PENALTY = 1e-3  # of the linear layer on windows, as in `unstill detect`
OVERLAP = 0.5  # boxes are the true ones: every threshold gives the same
LAYER = "penultimate"  # that the probe of the transfer reads
TRANSFER_SEED = 1000  # added to the seed: no video of the encoder's world
Outcome = dict[str, Any]  # of a head, in the form of JSON
Score = Callable[[np.ndarray | None], float]  # how often each test video counts -> measure


class Task(Protocol):
    """One task on the videos of one seed."""

    @property
    def folder(self) -> Path:
        """For what is made on the way."""
        ...

    @property
    def file(self) -> str:
        """Where an outcome is kept, below the folder and the encoder."""
        ...

    @property
    def splits(self) -> Sequence[str]:
        """Sets of test videos."""
        ...

    @property
    def count(self) -> int:
        """Test videos of a set."""
        ...

    def prepare(self, encoders: Mapping[str, Path]) -> None:
        """Make what all encoders need, unless it is there."""
        ...

    def settings(self, run: Path) -> list[object]:
        """What an outcome is made of, as JSON has it."""
        ...

    def outcome(self, encoder: str, run: Path) -> Outcome:
        """What the head makes of an encoder's features."""
        ...

    def scores(self, outcome: Outcome, split: str) -> dict[str, Score]:
        """Measure -> score on a set of test videos."""
        ...


@dataclass(frozen=True)
class OnLongVideos:
    """What tasks on long videos have in common.

    Attributes:
        videos: of one seed.
        file: see ``Task``.
    """

    videos: LongVideos
    file: str = "outcome.json"

    @property
    def folder(self) -> Path:
        """See ``Task``."""
        return self.videos.folder

    @property
    def splits(self) -> Sequence[str]:
        """See ``Task``."""
        return FREE_AND_ALIKE

    @property
    def count(self) -> int:
        """See ``Task``."""
        return self.videos.test

    def prepare(self, encoders: Mapping[str, Path]) -> None:
        """See ``Task``."""
        write_features(self.videos, encoders)

    def settings(self, run: Path) -> list[object]:
        """See ``Task``."""
        return [ANOMALY_STEPS, EPOCHS, RATE, CHANNELS, made_of(self.videos, run)]


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


class Localisation(OnLongVideos):
    """Which action happens from when to when."""

    def outcome(self, encoder: str, run: Path) -> Outcome:
        """Truth and detections in the test videos, by columns."""
        config = LocaliseConfig(
            features=self.folder / encoder,
            annotations=self.folder / "annotations.json",
            out=self.folder / "out",
            seeds=(self.videos.motions.seed,),
            epochs=EPOCHS,
            lr=RATE,
            channels=CHANNELS,
            device="cpu",
        )
        result = run_localise(config)
        (found,) = result.found.values()
        both = (("truth", truth_of(result.test.videos)), ("found", found))
        return {name: _columns(segments) for name, segments in both}

    def scores(self, outcome: Outcome, split: str) -> dict[str, Score]:
        """See ``Task``."""
        return {"localisation": localisation_score(outcome, split, self.count)}


def localisation_score(outcome: Outcome, split: str, count: int) -> Score:
    """mAP over tIoU .3 to .7 of a split."""
    truth, found = (_segments(outcome[name], split) for name in ("truth", "found"))
    matched = match(truth, found, THUMOS_UPPER, [key_of(split, index) for index in range(count)])
    return lambda times: float(np.nanmean([one.average_precision(times) for one in matched.values()]))


def _columns(segments: Segments) -> dict[str, list]:
    """As JSON has them."""
    columns = {"video": list(segments.video), "label": list(segments.label)}
    columns |= {"start": segments.start.tolist(), "end": segments.end.tolist()}
    return columns if segments.score is None else columns | {"score": segments.score.tolist()}


def _segments(columns: Mapping[str, list], split: str) -> Segments:
    """The segments of a split's videos."""
    own = [row for row, video in enumerate(columns["video"]) if video.startswith(split)]
    chosen = {name: [column[row] for row in own] for name, column in columns.items()}
    numbers = {name: np.array(chosen[name], np.float64) for name in ("start", "end", "score") if name in chosen}
    return Segments(chosen["video"], chosen["label"], **numbers)


class Detection(OnLongVideos):
    """What the person in a box does; videos are files, converted like any others."""

    def prepare(self, encoders: Mapping[str, Path]) -> None:
        """Write and convert the videos."""
        files = self.folder / "videos"
        write_long_videos(self.videos.motions, files, train=self.videos.train, test=self.videos.test)
        for subset in ("train", "test"):
            convert(
                ConvertConfig(
                    source=files / "videos",
                    out=self.folder / "shards" / subset,
                    only=files / f"{subset}_videos.txt",
                    codec="vp9",
                    short_side=self.videos.motions.size,
                )
            )

    def outcome(self, encoder: str, run: Path) -> Outcome:
        """The true tubes of the test videos, and each once for every class with its scores."""
        config = DetectConfig(
            models=(str(run),),
            train=self.folder / "shards" / "train",
            test=self.folder / "shards" / "test",
            truth=self.folder / "videos" / BOXES,
            truth_fps=self.videos.motions.fps,
            every=self.videos.stride,
            resamples=2,
            device="cpu",
        )
        report = run_detect(config)
        both = (("truth", report.truth), ("found", report.results[0].found))
        return {name: [_as_json(tube) for tube in tubes] for name, tubes in both}

    def scores(self, outcome: Outcome, split: str) -> dict[str, Score]:
        """See ``Task``."""
        return detection_scores(outcome, split, self.count)


def detection_scores(outcome: Outcome, split: str, count: int) -> dict[str, Score]:
    """frame-mAP and video-mAP of a split."""
    truth, found = ([_tube(one) for one in outcome[name] if split in one["video"]] for name in ("truth", "found"))
    scores = {}
    for measure, function in (("detection", frame_map), ("detection_videos", video_map)):
        result = function(truth, found, thresholds=(OVERLAP,))
        numbers = [int(video.rpartition("_")[2]) for video in result.videos]  # of the test videos that have truth

        def score(times: np.ndarray | None, result=result, numbers=numbers) -> float:
            own = np.ones(count, np.int64) if times is None else times
            return result.weighted(OVERLAP, np.append(own[numbers], 0))

        scores[measure] = score
    return scores


def _as_json(tube: Tube) -> dict[str, Any]:
    columns = {name: getattr(tube, name).tolist() for name in ("frames", "boxes", "scores")}
    return {"video": tube.video, "label": tube.label, **columns}


def _tube(columns: Mapping[str, Any]) -> Tube:
    boxes, scores = (np.array(columns[name], np.float64) for name in ("boxes", "scores"))
    return Tube(columns["video"], columns["label"], np.array(columns["frames"], np.int64), boxes, scores)


@dataclass(frozen=True)
class Transfer:
    """The class of short videos in which appearance never follows it, in the training videos neither: a linear probe.

    Attributes:
        folder: for videos and shards.
        seed: of the encoders; the videos have another.
        train, test: how many videos.
    """

    folder: Path
    seed: int
    train: int
    test: int
    splits: Sequence[str] = ("free",)
    file: str = "outcome.json"

    @property
    def count(self) -> int:
        """See ``Task``."""
        return self.test

    def prepare(self, encoders: Mapping[str, Path]) -> None:
        """Render and convert the videos."""
        videos = self._videos()
        write_motions(videos)
        for split in videos.splits:
            classes = None if split == "train" else self.folder / "shards" / "train" / "dataset.json"
            out = self.folder / "shards" / split
            convert(
                ConvertConfig(source=videos.out / split, out=out, codec="vp9", short_side=videos.size, classes=classes)
            )

    def settings(self, run: Path) -> list[object]:
        """See ``Task``."""
        return [self.seed, self.train, self.test, str(run), latest(run)]

    def outcome(self, encoder: str, run: Path) -> Outcome:
        """Which test videos the probe knows."""
        subject, options = load_subject(run, encoder), EvaluateOptions(device="cpu", probe_features=False)
        train, test = (
            clip_features([subject], self.folder / "shards" / split, {"filmed": as_filmed}, options, [LAYER])[encoder]
            for split in self._videos().splits
        )
        # videos of one index have one name in every split, and are others
        test = replace(test, keys=tuple(f"test_{key}" for key in test.keys))
        return {"right": known_by_probe(train, test, LAYER)[0].tolist()}

    def scores(self, outcome: Outcome, split: str) -> dict[str, Score]:
        """See ``Task``."""
        right = np.array(outcome["right"], np.float64)
        return {"transfer": lambda times: float(np.average(right, weights=times))}

    def _videos(self) -> MotionsConfig:
        rate = 1 / len(CLASSES)
        return MotionsConfig(
            out=self.folder / "videos",
            seed=TRANSFER_SEED + self.seed,
            train=self.train,
            test=self.test,
            splits=("train", "unbiased"),
            scene_rate=rate,
            actor_rate=rate,
        )

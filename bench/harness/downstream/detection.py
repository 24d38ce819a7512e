"""Spatio-temporal detection in long videos that are files: what the actor in a true box does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....pipeline.conversion.convert import ConvertConfig, convert
from ....trainer.demo.motions.long_files import BOXES, write_long_videos
from ....trainer.demo.motions.world import SHARD_QUALITY
from ....trainer.downstream.detection.config import DetectConfig
from ....trainer.downstream.detection.evaluation import run_detect
from ....trainer.downstream.detection.tubes import Tube
from ....trainer.downstream.detection_map import frame_map, video_map
from .task import OnLongVideos, Outcome, Score

OVERLAP = 0.5  # boxes are the true ones: every threshold gives the same


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
                    quality=SHARD_QUALITY["vp9"],
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

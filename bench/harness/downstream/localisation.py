"""Temporal localisation in long videos: which action happens from when to when."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ....trainer.demo.motions.long_files import key_of
from ....trainer.downstream.localisation.config import LocaliseConfig
from ....trainer.downstream.localisation.evaluation import run_localise
from ....trainer.downstream.localisation.videos import truth_of
from ....trainer.downstream.temporal_map import THUMOS_UPPER, Segments, match
from .task import CHANNELS, EPOCHS, RATE, OnLongVideos, Outcome, Score


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

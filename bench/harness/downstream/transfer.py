"""Transfer: a linear probe on short videos of another seed, in which appearance never follows the class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ....pipeline.conversion.convert import ConvertConfig, convert
from ....trainer.demo.motions.files import write_motions
from ....trainer.demo.motions.world import CLASSES, SHARD_QUALITY, MotionsConfig
from ....trainer.diagnostics.clip_features import clip_features
from ....trainer.downstream.transfer.evaluation import known_by_probe
from ....trainer.evaluation.config import EvaluateOptions
from ....trainer.evaluation.derived_clips import as_filmed
from ....trainer.evaluation.subject import load_subject
from .long_features import latest
from .task import Outcome, Score

LAYER = "penultimate"  # that the probe reads
TRANSFER_SEED = 1000  # added to the seed: no video of the encoder's world


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
                ConvertConfig(
                    source=videos.out / split,
                    out=out,
                    codec="vp9",
                    quality=SHARD_QUALITY["vp9"],
                    short_side=videos.size,
                    classes=classes,
                )
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

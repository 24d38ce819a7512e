"""What a task is, and what those on long videos have in common.

``prepare`` makes videos and features of all encoders, ``outcome`` trains the head on those of one, ``scores`` measures
one set of test videos.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ....trainer.demo.motions.long_files import FREE_AND_ALIKE
from .long_features import LongVideos, made_of, write_features

# head settings, fixed on seed 50 and other encoders before the table's seeds were run
ANOMALY_STEPS, EPOCHS, RATE, CHANNELS = 500, 30, 4e-3, 64
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

"""Mixup and CutMix together, as timm and the trainers of video transformers do: each batch is mixed in one way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...pipeline.options import between, check_options, more_than
from ..batch import Batch
from .base import BatchAugmentation, Context
from .mixup import Mixup
from .videomix import VideoMix


@dataclass(frozen=True, kw_only=True)
class MixupCutmix(BatchAugmentation):
    """Mixup or CutMix: blend each clip and its label with another of the batch, or paste a rectangle of it in."""

    title: ClassVar[str] = "Mixup and CutMix"

    prob: float = 1.0
    """Probability that a sample is augmented."""
    switch: float = 0.5
    """Probability that a batch is mixed by CutMix; else by Mixup."""
    mixup_alpha: float = 0.8
    """Mixup's own share is drawn from Beta(alpha, alpha)."""
    cutmix_alpha: float = 1.0
    """CutMix's own share is drawn from Beta(alpha, alpha), before the rectangle is cut off at the borders."""

    mixes_labels: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check_options(
            self,
            "augmentation.",
            switch=between(0, 1, "a probability"),
            mixup_alpha=more_than(0),
            cutmix_alpha=more_than(0),
        )

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``."""
        common = {"prob": self.prob, "static_from": self.static_from}
        if rng.random() < self.switch:
            return VideoMix(alpha=self.cutmix_alpha, cuboid="spatial", **common)(batch, rng, context)
        return Mixup(alpha=self.mixup_alpha, **common)(batch, rng, context)

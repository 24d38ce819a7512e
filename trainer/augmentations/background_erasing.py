"""BE, background erasing (arXiv 2009.05769): one frame of the clip is blended into all its frames; the label stays.

This is the form that StillMix compares with. The original trains without labels, by drawing the erased clip towards the
clean one; ``consistency_weight`` adds the mean squared distance of their logits, as its authors' code does where labels
are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...pipeline.options import at_least, between, check_options
from ..batch import PEOPLE, Batch, chosen_rows, mix, people_of_both, repeat_frame, share_where, to_device
from ..methods.consistency import CLEAN, CLEAN_WEIGHT
from .base import BatchAugmentation, Context

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BackgroundErasing(BatchAugmentation):
    """Blend one frame of each clip into all its frames."""

    title: ClassVar[str] = "BE"

    most: float = 0.3
    """Largest share of the still frame; the share is uniform from 0."""
    consistency_weight: float = 0.0
    """Weight of the mean squared distance between the logits of the erased and of the clean clip; above 0 a step has
    one more forward."""

    def __post_init__(self):
        super().__post_init__()
        check_options(self, "augmentation.", most=between(0, 1, "a share"), consistency_weight=at_least(0))

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``; labels stay."""
        import torch

        n, device = len(batch), batch.motion.device
        chosen = chosen_rows(n, self.prob, rng)
        frame = to_device(rng.integers(batch.motion.shape[2], size=n), device)
        share = share_where(n, chosen, 1 - self.most * rng.random(), device)
        erased = batch.blended(
            context.run(erase_background, batch.motion, frame, share),
            people=people_of_both(batch, batch.per_sample.get(PEOPLE), frame, share),
            static_from=self.static_from,
        )
        if self.consistency_weight:
            weight = torch.full_like(share, self.consistency_weight)
            erased.per_sample.update({CLEAN: batch.motion, CLEAN_WEIGHT: weight})
        return erased


def erase_background(motion: Tensor, frame: Tensor, share: Tensor) -> Tensor:
    """share * clip + (1 - share) * one of its frames.

    Args:
        motion: (B,3,T,h,w).
        frame: int64 (B,), which frame.
        share: (B,), of the clip.
    """
    return mix(motion, repeat_frame(motion, frame), share)

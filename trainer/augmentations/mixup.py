"""Mixup (arXiv 1710.09412): two clips and their labels, blended by one ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...pipeline.options import check_options, more_than
from ..batch import PEOPLE, Batch, chosen_rows, mix, share_where, shuffled_partners, to_device
from .base import BatchAugmentation, Context

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Mixup(BatchAugmentation):
    """Blend each clip and its label with another clip of the batch."""

    title: ClassVar[str] = "Mixup"

    alpha: float = 0.2
    """The own share is drawn from Beta(alpha, alpha)."""

    mixes_labels: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check_options(self, "augmentation.", alpha=more_than(0))

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``; labels and scenes are mixed like the pixels."""
        import torch

        n, device = len(batch), batch.motion.device
        chosen = chosen_rows(n, self.prob, rng)
        partner = to_device(shuffled_partners(n, chosen, rng), device)
        share = share_where(n, chosen, rng.beta(self.alpha, self.alpha), device)
        people = batch.per_sample.get(PEOPLE)
        return batch.blended(
            context.run(mixup, batch.motion, partner, share),
            partner,
            people=None if people is None else torch.maximum(people, people[partner]),
            label_share=share,
            scene_share=share,
            classes=context.classes,
            static_from=self.static_from,
        )


def mixup(motion: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """share * clip + (1 - share) * partner's clip.

    Args:
        motion: (B,3,T,h,w).
        partner: int64 (B,).
        share: (B,), of the own clip.
    """
    return mix(motion, motion[partner], share)

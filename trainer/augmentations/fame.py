"""FAME, foreground-background merging (arXiv 2109.15130): what moves is put before another clip's background.

The label is the foreground's; ``foreground`` says where that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ...pipeline.options import between, check_options
from ..batch import PEOPLE, Batch, broadcast_over, chosen_rows, shuffled_partners, to_device
from .base import BatchAugmentation, Context


@dataclass(frozen=True, kw_only=True)
class Fame(BatchAugmentation):
    """Put what moves in each clip before another clip's background; the label is what moves."""

    title: ClassVar[str] = "FAME"

    beta: float = 0.5
    """Share of the pixels that count as foreground."""
    colour: Literal["published", "circle"] = "published"
    """How colours are binned. published: as in the released code, which multiplies a hue in radians by 2 pi again, so
    that the colour circle is wound up six times. circle: by hue and saturation as a point of the colour circle."""

    def __post_init__(self):
        super().__post_init__()
        share = between(0, 1, "a share of the picture", without_low=True, without_high=True)
        check_options(self, "augmentation.", beta=share)

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``; labels stay, scenes are the background's."""
        import torch

        n, device = len(batch), batch.motion.device
        chosen = chosen_rows(n, self.prob, rng)
        partner = to_device(shuffled_partners(n, chosen, rng), device)
        mean, std = context.normalisation(device)
        from .foreground import foreground_mask

        mask = foreground_mask(batch.motion.detach().float() * std + mean, self.beta, self.colour)
        own = broadcast_over(partner == torch.arange(n, device=device), mask)
        kept = (own | mask)[:, None, None]
        motion = torch.where(kept, batch.motion, batch.motion[partner])
        people = batch.per_sample.get(PEOPLE)
        return batch.blended(
            motion,
            partner,
            scene_share=own.flatten().float(),
            people=None if people is None else torch.where(kept, people, people[partner]),
            static_from=self.static_from,
        )

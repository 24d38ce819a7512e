"""ActorCutMix (arXiv 2103.16565, "Learning representational invariances"): people before another clip's background.

The partner's own people are left out: the mean colour (0 in normalised units) where the new ones do not cover them, as
in the released code. The label belongs to whom the pixels show: with r the share of people, the own class keeps
1 - (r - 1)^4. As in StillMix's code each sample has its own coin; the authors' own code tosses one a batch, for which
`prob` is 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...pipeline.errors import InputError
from ..batch import Batch, broadcast_over, chosen_rows, only_chosen, to_device
from .base import BatchAugmentation, Context

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ActorCutMix(BatchAugmentation):
    """Put the people of each clip before the background of another; needs the people's boxes (`people`)."""

    title: ClassVar[str] = "ActorCutMix"

    mixes_labels: ClassVar[bool] = True
    needs_people: ClassVar[bool] = True

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``; rows pair from both ends of the batch inwards, a middle one is left alone."""
        if "people" not in batch.per_sample:
            raise InputError("augmentation ActorCutMix needs to know where people are; give a file of boxes: --people")
        n, device = len(batch), batch.motion.device
        partner = to_device(only_chosen(np.arange(n)[::-1], chosen_rows(n, self.prob, rng)), device)
        people = batch.per_sample["people"]
        motion, label_share, scene_share = context.run(actor_cutmix, batch.motion, people, partner)
        return batch.blended(
            motion,
            partner,
            label_share=label_share,
            scene_share=scene_share,
            classes=context.classes,
            static_from=self.static_from,
        )


def actor_cutmix(motion: Tensor, people: Tensor, partner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Clips with the partner's background.

    Args:
        motion: (B,3,T,h,w), normalised: 0 is the mean colour.
        people: (B,1,T,h,w), 1 where a person is, else 0.
        partner: int64 (B,); a row that is its own partner is left alone.

    Returns:
        The clips, and the own class's and own scene's shares, (B,) float32. A clip without people, or with nothing
        else, stays as it is; as a partner it gives no background but the mean colour, and then the own scene stays.
    """
    import torch

    mask = people.to(motion.dtype)
    area = people.float().mean((1, 2, 3, 4))
    rows = torch.arange(len(motion), device=motion.device)
    unusable = (area == 0) | (area == 1)
    alone = (partner == rows) | unusable
    covered = (mask > 0) | broadcast_over(unusable, mask)
    background = torch.where(covered[partner], 0.0, motion[partner])
    pasted = torch.where(mask > 0, motion, background)
    share = torch.where(alone, 1.0, 1 - (area - 1) ** 4)
    own_scene = (alone | unusable[partner]).float()
    return torch.where(broadcast_over(alone, motion), motion, pasted), share, own_scene

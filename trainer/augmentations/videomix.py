"""VideoMix (arXiv 2012.03457): a cuboid of another clip is pasted in; labels mix by the share of its voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ...pipeline.options import check_options, more_than
from ..batch import PEOPLE, Batch, chosen_rows, share_where, shuffled_partners, to_device
from .base import BatchAugmentation, Context

if TYPE_CHECKING:
    from torch import Tensor


Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class VideoMix(BatchAugmentation):
    """Paste a cuboid of another clip of the batch into each clip."""

    title: ClassVar[str] = "VideoMix"

    alpha: float = 1.0
    """The own share is drawn from Beta(alpha, alpha), before the cuboid is cut off at the borders."""
    cuboid: Literal["spatial", "temporal", "spatio_temporal"] = "spatial"
    """spatial: one rectangle through all frames (CutMix on clips); temporal: complete frames; or both at once."""

    mixes_labels: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check_options(self, "augmentation.", alpha=more_than(0))

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``; one cuboid a batch, labels and scenes by its voxels."""
        n, device = len(batch), batch.motion.device
        chosen = chosen_rows(n, self.prob, rng)
        partner = to_device(shuffled_partners(n, chosen, rng), device)
        time, height, width = batch.motion.shape[2:]
        spans = draw_cuboid((time, height, width), rng.beta(self.alpha, self.alpha), self.cuboid, rng)
        bounds = to_device(np.array(spans), device)
        motion = context.run(paste_cuboid, batch.motion, partner, bounds)
        share = share_where(n, chosen, own_share((time, height, width), spans), device)
        people = batch.per_sample.get(PEOPLE)
        return batch.blended(
            motion,
            partner,
            people=None if people is None else paste_cuboid(people, partner, bounds),
            label_share=share,
            scene_share=share,
            classes=context.classes,
            static_from=self.static_from,
        )


def draw_cuboid(shape: tuple[int, int, int], share: float, kind: str, rng: np.random.Generator) -> tuple[Span, ...]:
    """Where to paste: begin and end (exclusive) on each axis of (T,h,w).

    The cuboid takes ``1 - share`` of the volume, with sides in the clip's proportions, rounded down to even numbers as
    in CutMix's code, and a uniform centre; what reaches over a border is cut off.
    """
    cut = {"spatial": (False, True, True), "temporal": (True, False, False), "spatio_temporal": (True, True, True)}
    axes = cut[kind]
    ratio = (1 - share) ** (1 / sum(axes))
    spans = []
    for length, is_cut in zip(shape, axes, strict=True):
        if not is_cut:
            spans.append((0, length))
            continue
        half, centre = int(length * ratio) // 2, int(rng.integers(length))
        spans.append((max(centre - half, 0), min(centre + half, length)))
    return tuple(spans)


def own_share(shape: tuple[int, int, int], spans: tuple[Span, ...]) -> float:
    """Share of the voxels of (T,h,w) that lie outside a cuboid."""
    return 1 - math.prod(end - begin for begin, end in spans) / math.prod(shape)


def paste_cuboid(motion: Tensor, partner: Tensor, bounds: Tensor) -> Tensor:
    """Clips with a cuboid of their partners' voxels.

    Args:
        motion: (B,C,T,h,w).
        partner: int64 (B,).
        bounds: int64 (3,2), begin and end (exclusive) on T, h and w.
    """
    import torch

    axes = [torch.arange(length, device=motion.device) for length in motion.shape[2:]]
    time, row, column = ((at >= begin) & (at < end) for at, (begin, end) in zip(axes, bounds, strict=True))
    inside = time[:, None, None] & row[:, None] & column
    return torch.where(inside, motion[partner], motion)

"""Recast: what moves is cast again, in another clip's colours and before another clip's background.

    b_i = mean over time of clip x_i          d_i = x_i - b_i, what moves in it
    x'_i = b_k' + C_k^1/2 Q C_i^-1/2 d_i      C: colour covariance of d, k and k' other clips of the batch

The label stays, no mask and no label is read. Q is a random rotation of colour space. What a mover does is as it was;
which colours it does it in says nothing of the class any more. ``what="clip"`` recasts all of the clip, with the mean
over time and place for b: for cameras that move. So are single clips whose camera was not made to stand still
(``per_sample["steady"]``).

The network sees the clip as it was filmed, too, as a second view that counts ``as_filmed``: without it the network
need not work on ordinary clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ...pipeline.options import at_least, between, check_options
from ..batch import STEADY, Batch, broadcast_over, to_device, upload
from .base import BatchAugmentation, Context

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Recast(BatchAugmentation):
    """Give what moves in each clip the colours of what moves in another clip."""

    title: ClassVar[str] = "Recast"

    prob: float = 1.0
    """Probability that a clip is recast in the first view."""
    what: Literal["mover", "clip"] = "mover"
    """mover: what moves, clip minus its mean over time. clip: all of the clip, minus its mean colour."""
    background: Literal["own", "other"] = "own"
    """Before what: the clip's own mean over time (mean colour), or another clip's."""
    rotate: bool = True
    """Turn the colours by a random rotation as well."""
    as_filmed: float = 0.3
    """Weight of the second view, the clip as filmed, in the motion clips' loss; the first view has the rest. Above 0 a
    step has one more forward and backward. 0: one view."""
    floor: float = 1e-3
    """Added to the diagonal of the colour covariances, in normalised units squared."""

    def __post_init__(self):
        super().__post_init__()
        share = between(0, 1, "a weight", without_high=True)
        check_options(self, "augmentation.", as_filmed=share, floor=at_least(0))

    @property
    def second_share(self) -> float:
        """Weight of the second view."""
        return self.as_filmed

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``; labels stay, scenes are the background's."""
        import torch

        n, device = len(batch), batch.motion.device
        chosen = upload(rng.random(n) < self.prob, device)
        partner, behind = (to_device(other_rows(n, rng), device) for _ in range(2))
        if self.background == "own":
            behind = torch.arange(n, device=device)
        turn = random_rotations(n, rng) if self.rotate else np.tile(np.eye(3), (n, 1, 1))
        steady = batch.per_sample.get(STEADY)
        whole = self.what == "clip" or (False if steady is None else ~steady)
        motion = recast(batch.motion, partner, behind, upload(turn, device), self.floor, whole=whole)
        if self.prob < 1:
            motion = torch.where(broadcast_over(chosen, motion), motion, batch.motion)
        own = ~chosen if self.background == "other" else torch.ones_like(chosen)
        out = batch.blended(motion, behind, scene_share=own.float(), static_from=self.static_from)
        return out.with_second_view(batch.motion, self.as_filmed) if self.as_filmed else out


def recast(
    clips: Tensor,
    partner: Tensor,
    behind: Tensor,
    rotation: Tensor,
    floor: float = 1e-3,
    *,
    whole: bool | Tensor = False,
) -> Tensor:
    """Clips whose movers have their partners' colours, before other backgrounds.

    Args:
        clips: (B,3,T,h,w), normalised.
        partner: int64 (B,), whose mover's colours each clip gets.
        behind: int64 (B,), whose mean over time it is put before.
        rotation: float64 (B,3,3).
        floor: see ``borrow_colours``.
        whole: recast the clip minus its mean colour, instead of minus its mean over time; or bool (B,), which clips.

    Returns:
        The shape and dtype of ``clips``; computed in float32 at least and rounded once.
    """
    import torch

    from .colour_statistics import borrow_colours

    exact = clips.to(torch.promote_types(clips.dtype, torch.float32))
    still = exact.mean(2, keepdim=True)
    behind_each = still[behind]
    if whole is not False:
        rows = broadcast_over(torch.as_tensor(whole, device=clips.device).expand(len(clips)), clips)
        colour = still.mean((3, 4), keepdim=True)
        still, behind_each = torch.where(rows, colour, still), torch.where(rows, colour[behind], behind_each)
    moving = exact - still
    return (behind_each + borrow_colours(moving, partner, rotation, floor)).to(clips.dtype)


def other_rows(count: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (count,): another row for each, uniform; itself where there is no other."""
    return (np.arange(count) + rng.integers(1, max(count, 2), size=count)) % count


def random_rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    """float64 (count,3,3): uniform rotations, from normalised Gaussian quaternions."""
    w, x, y, z = (q := rng.standard_normal((count, 4))).T / np.linalg.norm(q, axis=1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.ascontiguousarray(np.moveaxis(np.array(rows), 2, 0))

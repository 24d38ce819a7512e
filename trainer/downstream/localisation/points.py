"""Points of the pyramid, and which action each has to find; the rules of ActionFormer (Zhang et al., ECCV 2022).

Positions are in rows of features. Level l has a point at every 2^l-th row, and finds actions whose farther end is
between 2^(l+1) and 2^(l+2) rows away (level 0: from 0 on; the last: without a limit), as its public code has it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

RADIUS = 1.5  # strides around the centre of an action in which points find it


@dataclass(frozen=True)
class Points:
    """P points of all levels, level by level.

    Attributes:
        at: float32 (P,), rows.
        stride: float32 (P,), rows from one point of the level to the next.
        near, far: float32 (P,), how far away the farther end of an action may be, rows.
    """

    at: Tensor
    stride: Tensor
    near: Tensor
    far: Tensor

    @classmethod
    def of(cls, rows: int, levels: int) -> "Points":
        """The points over ``rows`` rows, a multiple of 2^(levels - 1)."""
        columns: list[list[Tensor]] = [[], [], [], []]
        for level in range(levels):
            at = torch.arange(0, rows, 2**level, dtype=torch.float32)
            near = 0.0 if level == 0 else 2.0 ** (level + 1)
            far = float("inf") if level == levels - 1 else 2.0 ** (level + 2)
            for column, value in zip(columns, (at, 2.0**level, near, far), strict=True):
                column.append(value if isinstance(value, Tensor) else torch.full_like(at, value))
        return cls(*(torch.cat(column) for column in columns))


def targets_of(points: Points, start: Tensor, end: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What each point has to say.

    A point finds an action that it lies in, within 1.5 strides of the action's centre, if the farther end is as far as
    its level finds. Of several it takes the shortest, and the classes of all that are as short to 0.001 rows.

    Args:
        points: P of them.
        start, end: float32 (N,), rows.
        label: int64 (N,).
        classes: K.

    Returns:
        classes: float32 (P,K), 0 or 1; no 1 where a point finds nothing.
        reach: float32 (P,2), to the start and to the end, in strides; of use where a point finds something.
    """
    if not len(start):
        return torch.zeros(len(points.at), classes), torch.zeros(len(points.at), 2)
    left, right = points.at[:, None] - start, end - points.at[:, None]
    centre, radius = (start + end) / 2, RADIUS * points.stride[:, None]
    inside = (left > 0) & (right > 0) & ((points.at[:, None] - centre).abs() < radius)
    farther = torch.maximum(left, right)
    fits = inside & (farther >= points.near[:, None]) & (farther <= points.far[:, None])
    length = torch.where(fits, end - start, float("inf"))
    shortest, which = length.min(1)
    chosen = (fits & (length <= shortest[:, None] + 1e-3)).float()
    kinds = (chosen @ torch.nn.functional.one_hot(label, classes).float()).clamp(max=1)
    reach = torch.stack([left, right], 2)[torch.arange(len(which)), which] / points.stride[:, None]
    return kinds, reach

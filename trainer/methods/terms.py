"""What methods share: the type of the network they are given, and the quantities that a run watches."""

from typing import Protocol

import torch
from torch import Tensor


class Logits(Protocol):
    """The network as a method sees it: clips (B,3,T,h,w) -> logits (B,C) of at least float32."""

    def __call__(self, clips: Tensor, *, twice_differentiable: bool = False) -> Tensor:
        """``twice_differentiable``: keep to operations that have a double backward (no fused attention)."""
        ...


def agreement(logits: Tensor, target: Tensor) -> Tensor:
    """Share of rows whose largest logit is the label; a detached scalar on the device.

    Args:
        logits: (B,C).
        target: int64 (B,), or soft labels (B,C), of which the largest counts.
    """
    label = target.argmax(1) if target.is_floating_point() else target
    return (logits.detach().argmax(1) == label).float().mean()


def confidently_wrong(logits: Tensor, target: Tensor) -> Tensor:
    """Share of rows that give more than half of the probability to one wrong class; a detached scalar.

    On static clips this is class flipping: the network hides the label behind another confident answer instead of
    having none.
    """
    label = target.argmax(1) if target.is_floating_point() else target
    top, predicted = torch.softmax(logits.detach(), 1).max(1)
    return ((top > 0.5) & (predicted != label)).float().mean()

"""Plain cross entropy on the motion clips: what every other method is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .consistency import with_consistency
from .terms import MethodDefaults, Network, RowLosses, agreement

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Baseline(MethodDefaults):
    """Plain cross entropy on the motion clips."""

    title: ClassVar[str] = "cross entropy"

    label_smoothing: float = 0.0
    """Share of the label's mass that is spread over all classes."""

    def loss(
        self,
        network: Network,
        row_losses: RowLosses,
        motion: Tensor,
        static: Tensor | None,
        target: Tensor,
        *,
        penalise: bool,
        per_sample: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy; shapes as in ``methods.albar``."""
        import torch

        z = network(motion)
        weight = z.new_full((len(z),), 1 / len(z))
        loss, _, _ = row_losses(z, target, len(z), weight, torch.zeros_like(weight), self.label_smoothing)
        terms = {"ce": loss.detach(), "top1": agreement(z, target)}
        return with_consistency(loss, terms, network, z, per_sample)

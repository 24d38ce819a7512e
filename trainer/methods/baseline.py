"""Plain cross entropy on the motion clips: what every other method is compared with."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...kernels import static_losses
from .terms import Logits, agreement


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Plain cross entropy on the motion clips."""

    label_smoothing: float = 0.0
    """Share of the label's mass that is spread over all classes."""

    static: ClassVar[Literal["none", "full"]] = "none"
    twice_differentiable: ClassVar[bool] = False

    def penalises(self, step: int) -> bool:
        """Whether ``step`` differentiates through an input gradient: never."""
        return False

    def loss(
        self, logits: Logits, motion: Tensor, static: Tensor | None, target: Tensor, *, penalise: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy; shapes as in ``methods.albar``."""
        z = logits(motion)
        ce, _, _ = static_losses(z, target, len(z), label_smoothing=self.label_smoothing)
        loss = ce.mean()
        return loss, {"ce": loss.detach(), "top1": agreement(z, target)}

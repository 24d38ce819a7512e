"""What methods share: the network as they see it, defaults, and quantities that a run logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class Network(Protocol):
    """The network as a method sees it: clips (B,3,T,h,w) -> logits (B,C) of at least float32."""

    method_module: Any  # what the method's ``module`` made
    """What the method's ``module`` made: parameters that are trained together with the network."""

    def __call__(self, clips: Tensor, *, twice_differentiable: bool = False) -> Tensor:
        """``twice_differentiable``: keep to operations that have a double backward (no fused attention)."""
        ...

    def with_features(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,C), and what the classifier's last layer saw, (B,D); both of at least float32."""
        ...

    def features_of(self, module: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
        """``with_features`` of another network that has the same layers, in the run's precision."""
        ...


class MethodDefaults:
    """A method without static clips, penalty, data or parameters of its own.

    Attributes:
        title: what people call the method.
        static: whether the method wants static clips.
        static_in_loss: whether ``loss`` reads them.
        static_pass: whether ``static_loss`` is added to ``loss``, in a forward and backward of its own.
        twice_differentiable: whether any of its steps needs a gradient of a gradient.
        needs_people: whether it wants to know where people are in each clip.
        period: number of steps after which ``penalises`` repeats.
        first_stage: run whose weights, the method's own included, this one starts from; ``build`` loads them.
        shown_terms: what the display of a run shows of ``loss``'s terms: name -> (title, format), in this order.
        lower_if_not_finite: options that a run whose loss is no longer finite is advised to lower.
    """

    title: ClassVar[str]
    static: ClassVar[Literal["none", "full"]] = "none"
    static_in_loss: ClassVar[bool] = False
    static_pass: ClassVar[bool] = False
    twice_differentiable: ClassVar[bool] = False
    needs_people: ClassVar[bool] = False
    period: ClassVar[int] = 1
    first_stage: ClassVar[Path | None] = None
    shown_terms: ClassVar[dict[str, tuple[str, str]]] = {
        "ce": ("motion CE", "{:.3f}"),
        "top1": ("motion top-1", "{:.1%}"),
        "consistency": ("consistency", "{:.3g}"),
    }
    lower_if_not_finite: ClassVar[tuple[str, ...]] = ()

    def penalises(self, step: int) -> bool:
        """Whether ``step`` differentiates through an input gradient."""
        return False

    def tables(self, data: Path) -> dict[str, Tensor]:
        """One row for each sample of the dataset at ``data``, in its order; ``loss`` gets those of a batch."""
        return {}

    def module(self, model: nn.Module, head: str, tables: dict[str, Tensor]) -> nn.Module | None:
        """Parameters of the method's own, trained and saved with the network but not part of it.

        Args:
            model: the network, before training.
            head: name of its last layer; empty where it is not known.
            tables: what ``tables`` returned.
        """
        return None

    def derived_terms(self, means: dict[str, float], classes: int) -> dict[str, float]:
        """More values for a logged record, computed from its mean terms.

        Args:
            means: terms by name, means since the last record.
            classes: number of classes.
        """
        return {}

    def symptoms(self, record: dict[str, float], classes: int) -> dict[str, tuple[bool, str]]:
        """What can go wrong with this objective: name -> (whether this record shows it, a warning that says so).

        Args:
            record: a logged record: terms, ``epoch`` and so on by name.
            classes: number of classes.
        """
        return {}


class RowLosses(Protocol):
    """Cross entropy and negative entropy of rows of logits, and their weighted sum (``kernels.weighted_losses``)."""

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        n_motion: int,
        ce_weight: Tensor,
        negent_weight: Tensor,
        label_smoothing: float = 0.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``(loss, ce, negent)``: the weighted sum, differentiable, and both terms of each row, for metrics.

        Args:
            logits: (R,C); the first ``n_motion`` rows belong to motion clips, the others to static clips.
            target: labels of the clips, int64 (B,) or soft (B,C).
            n_motion: number of motion rows.
            ce_weight, negent_weight: (R,), what each row's terms count.
            label_smoothing: share of the label's mass that is spread over all classes.
        """
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
    import torch

    label = target.argmax(1) if target.is_floating_point() else target
    top, predicted = torch.softmax(logits.detach(), 1).max(1)
    return ((top > 0.5) & (predicted != label)).float().mean()

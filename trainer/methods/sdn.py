"""SDN, scene debiasing (Choi et al., "Why can't I dance in the mall?", arXiv 1912.05534).

    features --head--> class logits -----------------------------> CE
    features --gradient reversal--> scene MLP -------------------> soft CE against the scene's pseudo-label
    people painted over --net--> class logits -------------------> + sum p log p   (uncertain without people)

The loss of the painted clips acts on the class head and everything below it, as the paper writes it; the released code
trains a separate head there, behind its own reversal. One step takes all terms, where the code alternates two.
People are painted in the mean colour of the clip's frame as it was cut, in the code in that of the complete frame;
clips with too few of them (``people_in``) are left out, in the code videos with too few.
The paper trains twice: first with ``w_mask`` 0 and ``alpha`` 1, the new layers before the others
(``optimiser.head_first``); then from all of those weights (``first_stage``) with both terms and ``alpha`` 0.5.
"""

# pyright: reportIncompatibleVariableOverride=false
# What the defaults have as class variables are properties or fields here; both are read the same way.

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...pipeline.errors import InputError
from ...pipeline.options import at_least, between, check_options
from ..batch import SCENE
from .consistency import with_consistency
from .gradient_reversal import reverse_gradient
from .terms import MethodDefaults, Network, RowLosses, agreement

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Sdn(MethodDefaults):
    """Scene debiasing: features that do not show the scene, and uncertainty where people are painted over."""

    title: ClassVar[str] = "SDN"

    scenes: Path | None = None
    """Scene of each training video: a .npz with keys and probabilities, or a .csv with the columns key and scene."""
    alpha: float = 0.5
    """How strongly the scene classifier's gradient is reversed into the features."""
    w_mask: float = 0.0
    """Weight of the negative entropy on clips whose people are painted over; above 0 it needs `people`."""
    people_in: float = 0.7
    """Share of a clip's frames that must show people for the clip to be painted over."""
    hidden: int = 512
    """Width of the scene classifier."""
    layers: int = 3
    """Hidden layers of the scene classifier."""
    first_stage: Path | None = None
    """Run whose network and scene classifier this one starts from; none: `model.weights`, and a new classifier."""
    label_smoothing: float = 0.0
    """Share of the label's mass that is spread over all classes."""

    shown_terms: ClassVar[dict[str, tuple[str, str]]] = MethodDefaults.shown_terms | {
        "scene_ce": ("scene CE", "{:.3f}"),
        "scene_top1": ("scene top-1", "{:.1%}"),
        "masked_entropy": ("entropy without people", "{:.3f}"),
    }

    def __post_init__(self):
        weights = {"alpha": at_least(0), "w_mask": at_least(0)}
        check_options(self, "method.", **weights, layers=at_least(0), people_in=between(0, 1, "a share of the frames"))

    @property
    def needs_people(self) -> bool:
        """Whether people must be painted over."""
        return self.w_mask > 0

    def tables(self, data: Path) -> dict[str, Tensor]:
        """The scenes of all samples, (N,K)."""
        from .scene_labels import scene_table

        if self.scenes is None:
            raise InputError("method SDN needs the scene of each video; give a file: --method.scenes")
        return {SCENE: scene_table(self.scenes, data)}

    def module(self, model: nn.Module, head: str, tables: dict[str, Tensor]) -> nn.Module:
        """The scene classifier."""
        from torch import nn

        from ..models.observed_network import feature_width
        from .scene_labels import scene_head

        classifier = scene_head(feature_width(model, head), tables[SCENE].shape[1], self.hidden, self.layers)
        return nn.ModuleDict({"head": classifier})

    def loss(
        self,
        network: Network,
        row_losses: RowLosses,
        motion: Tensor,
        static: Tensor | None,
        target: Tensor,
        *,
        penalise: bool,
        per_sample: dict[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The SDN objective of one batch; shapes as in ``methods.albar`` and ``methods.batch``."""
        import torch

        from .scene_labels import soft_cross_entropy

        n = len(motion)
        z, features = network.with_features(motion)
        scene_logits = network.method_module["head"](reverse_gradient(features, self.alpha))
        scene_ce = soft_cross_entropy(scene_logits, per_sample[SCENE])
        terms = {"top1": agreement(z, target), "scene_ce": scene_ce.detach()}
        terms["scene_top1"] = agreement(scene_logits, per_sample[SCENE])
        counted = None
        if self.w_mask:
            # a clip without people has nothing to paint over
            found = (per_sample["people"].flatten(3).amax((1, 3)) > 0).float().mean(1)
            shown = (found > 0) & (found >= self.people_in)
            z = torch.cat([z, network(people_painted_over(motion, per_sample["people"]))])
            counted = shown.to(z.dtype) / shown.sum().clamp_min(1)
            ce_weight = torch.cat([z.new_full((n,), 1 / n), z.new_zeros(n)])
            negent_weight = torch.cat([z.new_zeros(n), self.w_mask * counted])
        else:
            ce_weight, negent_weight = z.new_full((n,), 1 / n), z.new_zeros(n)
        loss, ce, negent = row_losses(z, target, n, ce_weight, negent_weight, self.label_smoothing)
        terms["ce"] = ce[:n].detach().mean()
        if counted is not None:
            terms["masked_entropy"] = -(negent[n:].detach() * counted).sum()
        return with_consistency(loss + scene_ce, terms, network, z[:n], per_sample)


def people_painted_over(motion: Tensor, people: Tensor) -> Tensor:
    """Clips (B,3,T,h,w) whose people, 1 in (B,1,T,h,w), have their frame's mean colour."""
    import torch

    return torch.where(people > 0, motion.mean((3, 4), keepdim=True), motion)

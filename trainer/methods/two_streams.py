"""Two streams made independent (Kobayashi, Ding, Tamaki, arXiv 2509.23009), in the form with a biased input.

    motion clip --net-----------> z_u -> CE                the network that is kept
    static clip --biased net----> z_b -> CE (+ scene CE)   sees no motion, so it can only learn appearance
    HSIC(features of one, features of the other)           ->  the kept network drops what appearance explains

    L = CE_u + CE_b + w_hsic HSIC(f_u, f_b) [+ w_scene SceneCE_b] [+ scene classifier on f_u, reversed by alpha]

The paper's weights and backbones are not known to us; these defaults are ours. HSIC is estimated on the clips of one
process, and its gradient averaged over processes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ...pipeline.errors import InputError
from ...pipeline.options import check_options
from ..batch import SCENE, row_targets
from .consistency import with_consistency
from .gradient_reversal import reverse_gradient
from .terms import MethodDefaults, Network, RowLosses, agreement

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TwoStreams(MethodDefaults):
    """Two networks with independent features, one of which sees only static clips."""

    title: ClassVar[str] = "two streams (HSIC)"

    w_hsic: float = 1.0
    """Weight of the dependence (HSIC) between the two networks' features."""
    hsic_into: Literal["unbiased", "both"] = "unbiased"
    """Which network the dependence trains: the kept one alone, or both, and then the biased one may drop appearance."""
    scenes: Path | None = None
    """Scene of each training video (see SDN), to be predicted from the biased features; none: no scene terms."""
    w_scene: float = 1.0
    """Weight of the biased stream's scene prediction, when scenes are given."""
    alpha: float = 0.0
    """Above 0: a scene classifier on the kept features, its gradient reversed by this factor; needs scenes."""
    label_smoothing: float = 0.0
    """Share of the label's mass that is spread over all classes."""

    static: ClassVar[Literal["none", "full"]] = "full"
    static_in_loss: ClassVar[bool] = True
    shown_terms: ClassVar[dict[str, tuple[str, str]]] = MethodDefaults.shown_terms | {
        "biased_ce": ("biased CE", "{:.3f}"),
        "biased_top1": ("biased top-1", "{:.1%}"),
        "hsic": ("HSIC", "{:.3g}"),
        "scene_ce": ("scene CE", "{:.3f}"),
        "hidden_scene_ce": ("hidden scene CE", "{:.3f}"),
    }

    def __post_init__(self):
        check_options(self, "method.")
        if self.alpha and self.scenes is None:
            raise InputError("method.alpha needs the scene of each video; give a file: --method.scenes")

    def tables(self, data: Path) -> dict[str, Tensor]:
        """The scenes of all samples, (N,K), when they are given."""
        from .scene_labels import scene_table

        return {} if self.scenes is None else {SCENE: scene_table(self.scenes, data)}

    def module(self, model: nn.Module, head: str, tables: dict[str, Tensor]) -> nn.Module:
        """The biased network, which starts from the same weights, and the scene classifiers."""
        from torch import nn

        from ..models.observed_network import feature_width
        from .scene_labels import scene_head

        parts = nn.ModuleDict({"biased": copy.deepcopy(model)})
        width = feature_width(model, head)
        if SCENE in tables:
            scenes = tables[SCENE].shape[1]
            heads = nn.ModuleDict({"biased": nn.Linear(width, scenes)})
            if self.alpha:
                heads["unbiased"] = scene_head(width, scenes, hidden=512, layers=1)
            parts["head"] = heads
        return parts

    def loss(
        self,
        network: Network,
        row_losses: RowLosses,
        motion: Tensor,
        static: Tensor,
        target: Tensor,
        *,
        penalise: bool,
        per_sample: dict[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The two-stream objective of one batch; shapes as in ``methods.albar`` and ``methods.batch``."""
        import torch

        from .hsic import hsic
        from .scene_labels import soft_cross_entropy

        n, module = len(motion), network.method_module
        z, features = network.with_features(motion)
        zb, biased = network.features_of(module["biased"], static)
        joint = torch.cat([z, zb])
        labels, n_motion, still_target = row_targets(target, per_sample, n, z.shape[1])
        weight = joint.new_full((2 * n,), 1 / n)
        loss, ce, _ = row_losses(joint, labels, n_motion, weight, torch.zeros_like(weight), self.label_smoothing)
        dependence = hsic(features, biased if self.hsic_into == "both" else biased.detach())
        loss = loss + self.w_hsic * dependence
        terms = {
            "ce": ce[:n].detach().mean(),
            "biased_ce": ce[n:].detach().mean(),
            "top1": agreement(z, target),
            "biased_top1": agreement(zb, still_target),
            "hsic": dependence.detach(),
        }
        if SCENE in per_sample:
            scene_ce = soft_cross_entropy(module["head"]["biased"](biased), per_sample[SCENE])
            loss = loss + self.w_scene * scene_ce
            terms["scene_ce"] = scene_ce.detach()
            if self.alpha:
                hidden = module["head"]["unbiased"](reverse_gradient(features, self.alpha))
                adversary = soft_cross_entropy(hidden, per_sample[SCENE])
                loss = loss + adversary
                terms["hidden_scene_ce"] = adversary.detach()
        return with_consistency(loss, terms, network, z, per_sample)

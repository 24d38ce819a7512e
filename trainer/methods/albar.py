"""ALBAR: adversarial learning on static clips (arXiv 2502.00156).

    motion clip x  --net--> logits ----------------------------> L_ce  =  CE(f(x), y)
    static clip xs --net--> logits --+-------------------------> L_adv = -CE(f(xs), y)
                                     +-------------------------> L_ent = mean_b sum_c p_c log p_c
                                     +-- d sum(logits) / d xs --> L_gp  = mean || gradient ||

    L = L_ce + w_adv L_adv + w_ent L_ent + w_gp L_gp

The same network sees both. The objective has no lower bound (-CE has none), so a run warns when ``static_ce`` grows.
With a base method, that method's loss takes the place of L_ce.
"""

# pyright: reportIncompatibleVariableOverride=false
# What the defaults have as class variables are properties or fields here; both are read the same way.

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...pipeline.errors import InputError
from ...pipeline.options import at_least, check_options
from ..batch import STATIC_TARGET, row_targets
from .base_methods import BaseMethod
from .baseline import Baseline
from .collapse import collapse_symptoms
from .consistency import with_consistency
from .terms import MethodDefaults, Network, RowLosses, agreement, confidently_wrong

if TYPE_CHECKING:
    from torch import Tensor, nn


# inside the root, as in the official code: the gradient of the norm stays finite where the input gradient is zero
NORM_EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class Albar(MethodDefaults):
    """ALBAR: the network must not be able to tell the class from a static clip."""

    title: ClassVar[str] = "ALBAR"

    w_adv: float = 1.0
    """Weight of the static adversary, minus the cross entropy of the static clips."""
    w_ent: float = 4.25
    """Weight of the static clips' negative entropy (nats)."""
    w_gp: float = 10.0
    """Weight of the gradient penalty; its unit depends on `gp_norm`."""
    gp_norm: Literal["per_column", "per_sample"] = "per_column"
    """per_column: one norm per image column, as the official code has it and as weight 10 is calibrated to.
    per_sample: one L2 norm per clip, as the paper writes it; up to sqrt(width) larger."""
    gp_scalar: Literal["logits_sum", "true_logit", "log_prob"] = "logits_sum"
    """What is differentiated by the static clip: the sum of all logits (the paper), the label's logit, or its
    log-probability. The last two change the method."""
    gp_every: int = 1
    """Take the penalty every k-th step only, k times as strong. Above 1 it is cheaper, and a change of the method."""
    forward: Literal["two", "joint"] = "two"
    """Motion and static clips in two passes (the official code) or in one joined batch. Equal except for batch norm,
    whose statistics are then shared, and for the draws of dropout."""
    label_smoothing: float = 0.0
    """Share of the label's mass that is spread over all classes, in both cross entropies."""
    base: BaseMethod | None = None
    """Another method that ALBAR is added to: its loss is taken instead of the motion clips' cross entropy."""

    static: ClassVar[Literal["none", "full"]] = "full"
    lower_if_not_finite: ClassVar[tuple[str, ...]] = ("--method.w-adv",)

    def __post_init__(self):
        check_options(self, "method.", gp_every=at_least(1))
        if self.base is not None and self.forward == "joint":
            raise InputError("method.forward joint: the method in method.base makes its own pass; use two")

    @property
    def twice_differentiable(self) -> bool:
        """Whether any step needs a gradient of a gradient."""
        return self.w_gp != 0

    def penalises(self, step: int) -> bool:
        """Whether ``step`` (counted from 0) takes the gradient penalty."""
        return self.w_gp != 0 and step % self.gp_every == 0

    @property
    def static_in_loss(self) -> bool:
        """Whether ``loss`` takes both kinds of clips."""
        return self.forward == "joint" or self._base.static_in_loss

    @property
    def static_pass(self) -> bool:
        """Whether motion and static clips have a forward and backward each."""
        return self.forward == "two"

    @property
    def period(self) -> int:
        """Every how many steps the penalty is taken."""
        return self.gp_every

    @property
    def shown_terms(self) -> dict[str, tuple[str, str]]:
        """The static clips' terms, and those of the base method."""
        return self._base.shown_terms | {
            "static_ce": ("static CE", "{:.2f}"),
            "static_entropy_share": ("static entropy / ln C", "{:.3f}"),
            "static_top1": ("static top-1", "{:.1%}"),
            "static_flip": ("static flips", "{:.1%}"),
            "gp": ("penalty norm", "{:.3g}"),
        }

    def derived_terms(self, means: dict[str, float], classes: int) -> dict[str, float]:
        """The static clips' entropy as a share of ``ln(classes)``."""
        share = {"static_entropy_share": means["static_entropy"] / math.log(classes)}
        return self._base.derived_terms(means, classes) | share

    def symptoms(self, record: dict[str, float], classes: int) -> dict[str, tuple[bool, str]]:
        """See ``collapse``."""
        return self._base.symptoms(record, classes) | collapse_symptoms(record, classes)

    @property
    def needs_people(self) -> bool:
        """Whether the base method does."""
        return self._base.needs_people

    @property
    def first_stage(self) -> Path | None:
        """The base method's."""
        return self._base.first_stage

    def tables(self, data: Path) -> dict[str, Tensor]:
        """Those of the base method."""
        return self._base.tables(data)

    def module(self, model: nn.Module, head: str, tables: dict[str, Tensor]) -> nn.Module | None:
        """That of the base method."""
        return self._base.module(model, head, tables)

    @property
    def _base(self) -> BaseMethod | Baseline:
        return self.base or Baseline(label_smoothing=self.label_smoothing)

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
        """The loss of the motion clips; with ``forward`` joint all of the objective.

        Args:
            network: clips to logits.
            row_losses: cross entropy and negative entropy of rows of logits.
            motion: (B,3,T,h,w), normalised.
            static, penalise: see ``static_loss``; only read with ``static_in_loss``.
            target: int64 (B,), or soft labels (B,C).
            per_sample: what the base method needs; see ``static_loss``, too.

        Returns:
            ``(loss, terms)``: the scalar to call ``backward`` on, and detached scalars by name: ``ce``, a cross entropy
            in nats, ``top1``, a share of the batch; or those of ``base``.
        """
        if self.forward == "two":
            base: Any = self._base  # takes static clips only with ``static_in_loss``
            static = None if static is None else static.detach()
            return base.loss(
                *(network, row_losses, motion, static, target), penalise=False, per_sample=per_sample or {}
            )
        import torch

        if static is None:
            raise ValueError("method.forward joint: no static clips")
        n = len(motion)
        joint = network(torch.cat([motion, static]), twice_differentiable=penalise)
        ce_weight = torch.cat([joint.new_full((n,), 1 / n), joint.new_full((n,), -self.w_adv / n)])
        negent_weight = torch.cat([joint.new_zeros(n), joint.new_full((n,), self.w_ent / n)])
        labels, n_motion, static_target = row_targets(target, per_sample, n, joint.shape[1])
        loss, ce, negent = row_losses(joint, labels, n_motion, ce_weight, negent_weight, self.label_smoothing)
        terms = {"ce": ce[:n].detach().mean(), "top1": agreement(joint[:n], target)}
        loss, terms = with_consistency(loss, terms, network, joint[:n], per_sample)
        still = (joint[n:], ce[n:], negent[n:], static, static_target)
        loss, static_terms = self._penalised(loss, *still, penalise)
        return loss, terms | static_terms

    def static_loss(
        self,
        network: Network,
        row_losses: RowLosses,
        static: Tensor,
        target: Tensor,
        *,
        penalise: bool,
        per_sample: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversary, the entropy and the penalty: means over the static clips.

        Args:
            network, row_losses, target: as for ``loss``.
            static: (B,3,T,h,w), one frame of each motion clip repeated T times. With ``penalise`` a contiguous leaf
                that requires grad: all T repeats count as independent variables.
            penalise: take the gradient penalty, ``gp_every`` times as strong.
            per_sample: ``static_target``, the static clips' labels, where an augmentation changed the motion clips'.

        Returns:
            ``(loss, terms)``: ``static_ce`` and ``static_entropy`` in nats, ``gp`` the unweighted penalty,
            ``static_top1`` and ``static_flip`` shares of the batch.
        """
        n = len(static)
        zs = network(static, twice_differentiable=penalise)
        static_target = (per_sample or {}).get(STATIC_TARGET, target)
        ce_weight, negent_weight = (zs.new_full((n,), weight / n) for weight in (-self.w_adv, self.w_ent))
        loss, ce, negent = row_losses(zs, static_target, n, ce_weight, negent_weight, self.label_smoothing)
        return self._penalised(loss, zs, ce, negent, static, static_target, penalise)

    def _penalised(self, loss, zs, ce, negent, static, static_target, penalise):
        terms = {
            "static_ce": ce.detach().mean(),
            "static_entropy": -negent.detach().mean(),
            "static_top1": agreement(zs, static_target),
            "static_flip": confidently_wrong(zs, static_target),
        }
        if penalise:
            penalty = self.penalty(zs, static, static_target)
            loss = loss + (self.w_gp * self.gp_every) * penalty
            terms["gp"] = penalty.detach()
        return loss, terms

    def penalty(self, zs: Tensor, static: Tensor, target: Tensor) -> Tensor:
        """Mean norm of the static clip's gradient, differentiable by the parameters (a double backward).

        Args:
            zs: logits (B,C) of the static clips.
            static: (B,3,T,h,w), the leaf that they were computed from.
            target: labels, for ``gp_scalar`` true_logit and log_prob.
        """
        import torch

        if self.gp_scalar == "logits_sum":
            scalar = zs.sum()
        else:
            score = zs if self.gp_scalar == "true_logit" else torch.log_softmax(zs, 1)
            if target.is_floating_point():
                scalar = (score * target).sum()
            else:
                scalar = score.gather(1, target[:, None]).sum()
        (g,) = torch.autograd.grad(scalar, static, create_graph=True)
        g = g if g.dtype == torch.float64 else g.float()  # a bf16 sum of squares over a clip would lose the small ones
        axes = (1, 2, 3, 4) if self.gp_norm == "per_sample" else (1, 2, 3)
        return (g.square().sum(axes) + NORM_EPS).sqrt().mean()

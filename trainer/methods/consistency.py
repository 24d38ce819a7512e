"""Consistency of a network on a clip and on its augmented form, as the authors of BE (arXiv 2009.05769) suggest it.

An augmentation leaves the clean clips and a weight in ``Batch.per_sample``; every method adds the term to its loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .terms import Network

if TYPE_CHECKING:
    from torch import Tensor


CLEAN, CLEAN_WEIGHT = "clean", "clean_weight"


def with_consistency(
    loss: Tensor, terms: dict[str, Tensor], network: Network, z: Tensor, per_sample: dict[str, Tensor] | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """``loss + mean_b weight_b mean_c (z - network(clean))^2``, and the unweighted term as ``consistency``.

    Args:
        loss, terms: of a method.
        z: logits (B,C) of the augmented clips.
        per_sample: ``clean`` (B,3,T,h,w) and ``clean_weight`` (B,), or neither, and then nothing is added.
    """
    if not per_sample or CLEAN not in per_sample:
        return loss, terms
    distance = (z - network(per_sample[CLEAN])).square().mean(1)
    return loss + (per_sample[CLEAN_WEIGHT] * distance).mean(), terms | {"consistency": distance.detach().mean()}

"""Integrated gradients (Sundararajan et al., ICML 2017): what each pixel adds to a logit, from a baseline on.

    a = (x - x0) * mean over s of d logit / dx at x0 + s (x - x0),   s = (k + 1/2) / steps

The attributions of all pixels add up to logit(x) - logit(x0) but for the sum's error, which ``gap`` states.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Attribution:
    """Attributes:
    pixels: (B,3,T,H,W), in the logit's units; of either sign.
    change: (B,), logit of the clip less that of the baseline.
    gap: (B,), sum of ``pixels`` less ``change``: the error of the finite number of steps.
    """

    pixels: Tensor
    change: Tensor
    gap: Tensor

    @property
    def heat(self) -> Tensor:
        """(B,T,H,W), not negative: what speaks for the class, colours added up."""
        return self.pixels.sum(1).relu()


def integrated_gradients(model: nn.Module, clips: Tensor, baseline: Tensor, target: Tensor, steps: int) -> Attribution:
    """Attribute a logit to pixels.

    Args:
        model: clips -> logits (B,C), in eval mode.
        clips: (B,3,T,H,W), normalised.
        baseline: the same shape; grey clips, or clips without motion.
        target: int64 (B,), whose logit.
        steps: points of the midpoint rule, each a forward and a backward pass.
    """

    def logit(x: Tensor) -> Tensor:
        return model(x).gather(1, target[:, None])[:, 0]

    total = torch.zeros_like(clips)
    for step in range(steps):
        with torch.enable_grad():
            x = (baseline + (step + 0.5) / steps * (clips - baseline)).detach().requires_grad_()
            # samples do not mix in eval mode, so the gradient of the sum holds every sample's own
            (gradient,) = torch.autograd.grad(logit(x).sum(), x)
        total += gradient / steps
    pixels = total * (clips - baseline)
    with torch.no_grad():
        change = logit(clips) - logit(baseline)
    return Attribution(pixels, change, pixels.sum((1, 2, 3, 4)) - change)

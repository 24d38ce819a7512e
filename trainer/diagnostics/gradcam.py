"""Where and when a video model finds its evidence: Grad-CAM over time, and its share on the moving actor.

    layer = last_map(model, clips)
    heat = grad_cam(model, clips, target, layer)      # (B,T,H,W) >= 0
    foreground_energy(heat, masks)                    # (B,) in [0, 1]

Grad-CAM (Selvaraju et al., ICCV 2017): channels of a feature map are weighted by the mean gradient of the class's logit
over all its positions, here over time as well as space, summed, and cut at zero. The map is coarse (a few frames, a few
positions) and scaled up linearly, so it says roughly where the evidence was, not which pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .feature_maps import FeatureMap


def grad_cam(model: nn.Module, clips: Tensor, target: Tensor, at: FeatureMap) -> Tensor:
    """Evidence for a class, place by place.

    Args:
        model: clips -> logits (B,C); put it in eval mode before.
        clips: float (B,3,T,H,W).
        target: int64 (B,), the class of each clip whose evidence is wanted.
        at: which layer, from ``last_map``.

    Returns:
        float32 (B,T,H,W), not negative, in the logit's units: comparable between frames of a clip, not between models.
    """
    with torch.enable_grad(), _output_of(at.layer) as outputs:
        logits = model(clips)
        features = outputs[-1]
        # samples do not mix in eval mode, so the gradient of the sum holds every sample's own
        (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), features)
    features, gradient = features.detach().float(), gradient.float()
    if at.channels_last:
        features, gradient = features.movedim(-1, 1), gradient.movedim(-1, 1)
    weight = gradient.mean((2, 3, 4), keepdim=True)
    heat = (weight * features).sum(1, keepdim=True).relu()
    return F.interpolate(heat, size=clips.shape[2:], mode="trilinear", align_corners=False)[:, 0]


def foreground_energy(heat: Tensor, masks: Tensor) -> Tensor:
    """Share of the heat that lies on the foreground.

    Args:
        heat: (B,T,H,W), not negative.
        masks: (B,T,H,W), share of each pixel that is foreground, in [0, 1].

    Returns:
        float32 (B,); NaN for a clip without any heat. An even map gives the foreground's share of the area.
    """
    if heat.shape != masks.shape:
        raise ValueError(f"heat {tuple(heat.shape)} and masks {tuple(masks.shape)} must have one shape")
    return (heat * masks).sum((1, 2, 3)) / heat.sum((1, 2, 3))


@contextmanager
def _output_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    outputs: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        # a map made without any trainable weight before it has no gradient unless it is asked for
        output = output if output.requires_grad else output.requires_grad_()
        outputs.append(output)
        # what follows gets its own handle: a later in-place operation must not change what was kept
        return output.clone()

    handle = layer.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()

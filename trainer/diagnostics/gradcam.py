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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.errors import InputError


@dataclass(frozen=True)
class FeatureMap:
    """A layer whose output has places in time and space.

    Attributes:
        name: its dotted name in the model.
        layer: the module.
        channels_last: whether its output is (B,t,h,w,K), as in video transformers, and not (B,K,t,h,w).
    """

    name: str
    layer: nn.Module
    channels_last: bool


_CHANNELS_FIRST = (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.InstanceNorm3d, nn.GroupNorm)


def last_map(model: nn.Module, clips: Tensor, side: int = 2) -> FeatureMap:
    """The last layer whose output still has places in space.

    Args:
        clips: a batch (B,3,T,H,W) to run the model on, one clip is enough.
        side: least number of places along height and along width; more of them give a finer map of an earlier layer.

    Raises:
        InputError: the model has no such layer.
    """
    found: list[FeatureMap] = []
    tokens = False  # whether the clip is on its way as tokens (B,t,h,w,K): only a layer that mixes channels can tell

    def note(name: str, layer: nn.Module):
        def hook(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            nonlocal tokens
            if not isinstance(output, Tensor) or output.ndim != 5:
                return
            last = isinstance(layer, nn.LayerNorm | nn.Linear)
            if last or isinstance(layer, _CHANNELS_FIRST):
                tokens = last
            if tokens and not isinstance(layer, nn.LayerNorm):
                return  # inside a block of a transformer: what it adds to the tokens, not the tokens
            height, width = output.shape[2:4] if tokens else output.shape[3:5]
            if min(height, width) >= side:
                found.append(FeatureMap(name, layer, tokens))

        return hook

    leaves = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note(name, layer)) for name, layer in leaves]
    try:
        with torch.no_grad():
            model(clips[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise InputError(
            f"{type(model).__name__}: no layer gives a map (B,K,t,h,w) or (B,t,h,w,K) with {side} x {side} places; "
            "Grad-CAM needs it"
        )
    return found[-1]


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

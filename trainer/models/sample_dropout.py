"""Dropout and stochastic depth that draw for each sample from a key of its own, not for a batch from a generator.

A pass that is computed in parts of the batch then draws the same whatever the number of parts: each number is a hash of
(the sample's key, the layer, the place in the layer). The integer hash is that of "lowbias32" (Chris Wellons, 2018).
"""

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

_32_BITS = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: successive multiples fill the range evenly
_OTHER_DROPOUTS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class SampleDraws:
    """Shared by the layers of one network.

    Attributes:
        keys: int64 (B,), the samples' keys while a pass draws by them; else None, and layers draw as they always do.
    """

    def __init__(self):
        self.keys: Tensor | None = None


class SampleDropout(nn.Module):
    """A dropout or stochastic depth that draws by key where there are keys.

    Args:
        original: an ``nn.Dropout``, or torchvision's ``StochasticDepth`` of mode "row".
        draws: where the keys are.
        layer: a number that no other layer of the network has.
    """

    def __init__(self, original: nn.Dropout | StochasticDepth, draws: SampleDraws, layer: int):
        super().__init__()
        self.original, self.draws, self.layer = original, draws, layer
        self.p = float(original.p)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (B,...), of which a share ``p`` is 0 and the rest divided by ``1 - p``."""
        keys, p = self.draws.keys, self.p
        if keys is None or not self.training:
            return self.original(x)
        each = 1 if isinstance(self.original, StochasticDepth) else x[0].numel()
        shape = (len(x), *(1,) * (x.ndim - 1)) if each == 1 else x.shape
        kept = draw_bits(keys, self.layer, each).view(shape) >= p * 2**32
        return x * (kept.to(x.dtype) / max(1 - p, 1e-12))


def draw_per_sample(model: nn.Module) -> SampleDraws:
    """Replace the layers of a network that draw, in place; its parameters keep their names.

    Returns:
        Where to put the keys of a pass.
    """
    draws, layer = SampleDraws(), 0
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout | StochasticDepth) and child.p > 0:
                setattr(parent, name, SampleDropout(child, draws, layer))
                layer += 1
    return draws


def draws_for_batch(model: nn.Module) -> str | None:
    """Path of a layer that draws, but not for each sample by itself; None where there is none."""
    for path, module in model.named_modules():
        one_draw = isinstance(module, StochasticDepth) and module.mode == "batch"
        if (one_draw or isinstance(module, _OTHER_DROPOUTS)) and getattr(module, "p", 0.0) > 0:
            return path
    return None


def draw_bits(keys: Tensor, layer: int, count: int) -> Tensor:
    """Uniform 32-bit numbers, int64 (B,count), from keys int64 (B,)."""
    low, high = keys & _32_BITS, (keys >> 32) & _32_BITS
    start = _mixed(_mixed((low + layer * _GOLDEN) & _32_BITS) ^ high)
    places = torch.arange(count, device=keys.device) * _GOLDEN
    return _mixed((start[:, None] + places) & _32_BITS)


def _mixed(x: Tensor) -> Tensor:
    # 32-bit arithmetic in int64: products wrap modulo 2**64, which leaves their low 32 bits right
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _32_BITS
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _32_BITS
    return x ^ (x >> 16)

"""Another appearance for the same clip: colours exchanged and bent, alike in all its frames.

A cheap stand-in for style transfer, which is what Kowal et al. (CVPR 2022) make their dynamic pairs with: shapes and
textures stay, so a network that reads them still finds them. Where another clip with the same motion exists, use it.
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from ..evaluation.derived_clips import key_uniform

_RESTYLE = 4  # what a hash is for, next to those of derived_clips
_ORDERS = torch.tensor([order for order in permutations(range(3)) if order != (0, 1, 2)])
GAMMA, GAIN = 2.0, 0.3  # gamma is log-uniform in [1/GAMMA, GAMMA]; each channel is scaled by 1 - GAIN to 1


def restyled(frames: Tensor, keys: Sequence[str], seed: int = 0) -> Tensor:
    """uint8 clips (B,T,H,W,3) in other colours, a function of (seed, key): channels permuted, then x ** gamma, then
    each channel scaled."""
    u = key_uniform(keys, _RESTYLE, 5, seed)
    order = _ORDERS[np.minimum((u[:, 0] * len(_ORDERS)).astype(np.int64), len(_ORDERS) - 1)]
    gamma = torch.from_numpy(GAMMA ** (2 * u[:, 1] - 1)).float()
    gain = torch.from_numpy(1 - GAIN * u[:, 2:5]).float()
    clip = (-1, 1, 1, 1, 1)
    permuted = frames.gather(4, order.to(frames.device).view(len(keys), 1, 1, 1, 3).expand_as(frames))
    level = (permuted.float() / 255) ** gamma.to(frames.device).view(clip)
    level = level * gain.to(frames.device).view(len(keys), 1, 1, 1, 3)
    return (level * 255).round().to(torch.uint8)

"""Weights of a picture's Swin for a video's (Video Swin Transformer, arXiv 2106.13230, section 3.4).

Patches of P frames: each frame's part of the embedding is the picture's over P, so that P equal frames give what the
picture gives. Position biases: the picture's table once for each of the 2 W - 1 distances in time of a window of W
frames. All other weights are taken as they are. On a still clip of 224 x 224 every attention then sees W copies of the
picture's keys, and the network gives the picture network's logits. (Where windows do not divide a stage, torchvision
pads pictures and shrinks the windows of videos.)
"""

import re

import torch

from ...pipeline.errors import InputError

_EMBEDDING = "features.0.0.weight"  # torchvision's names: of pictures the embedding is stage 0, of videos it is not


def is_picture_swin(state: dict[str, torch.Tensor]) -> bool:
    """Whether weights are those of torchvision's ``swin_t``, ``swin_s`` or ``swin_b``."""
    return _EMBEDDING in state and state[_EMBEDDING].ndim == 4


def inflated(state: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A picture network's weights by the names and shapes of the video network.

    Args:
        state: of torchvision's ``swin_t``, ``swin_s`` or ``swin_b``.
        own: of the ``swin3d`` network.

    Raises:
        InputError: its windows are not those of the video network.
    """
    found = {}
    for name, value in state.items():
        if name.endswith("relative_position_index"):
            continue
        new = re.sub(r"^features\.(\d+)\.", lambda match: f"features.{int(match[1]) - 1}.", name)
        new = new.replace("features.-1.0.", "patch_embed.proj.").replace("features.-1.2.", "patch_embed.norm.")
        if name == _EMBEDDING:
            frames = own[new].shape[2]
            value = value.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
        elif name.endswith("relative_position_bias_table"):
            times, rest = divmod(len(own[new]), len(value)) if new in own else (1, 0)
            if rest:
                raise InputError(
                    f"model.weights: {name} has {len(value)} positions, of which the video network's {len(own[new])} "
                    "are no multiple; give the weights of a Swin with windows of 7 x 7"
                )
            value = value.repeat(times, 1)
        found[new] = value
    return found | {name: value for name, value in own.items() if name.endswith("relative_position_index")}

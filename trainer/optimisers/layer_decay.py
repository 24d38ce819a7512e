"""Layer-wise decay of the learning rate (arXiv 1905.13788, as in BEiT and VideoMAE): layers near the input move less.

With L blocks, what is before them (embeddings) learns at decay^(L+1) times the rate, block i of 1..L at decay^(L+1-i),
what follows them at the rate itself.
"""

import re

from torch import nn

from ...pipeline.errors import InputError

# a block's number in its parameters' names: transformers, MViT, Video Swin, ResNets
_BLOCKS = (
    r"^((?!.*pooler)network\..*?\.\w*layers?)\.(\d+)\.",
    r"^(blocks)\.(\d+)\.",
    r"^(features\.\d+)\.(\d+)\.(?:norm|attn|mlp)",
    r"^(layer\d)\.(\d+)\.",
)
_BEFORE = re.compile(r"(embed|^patch|^stem|^conv_proj|pos_encoding|cls_token)")


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """The factor of each parameter's learning rate, by its name.

    Args:
        model: the network.
        decay: factor from a block to the one before it; 1: none.

    Raises:
        InputError: the network's blocks are not known.
    """
    names = [name for name, _ in model.named_parameters()]
    if decay == 1.0:
        return dict.fromkeys(names, 1.0)
    numbers: dict[tuple[str, str], int] = {}  # in the order of the forward, which is that of the names
    block_of = {}
    for name in names:
        found = next((match for pattern in _BLOCKS if (match := re.match(pattern, name))), None)
        if found is not None:
            block_of[name] = numbers.setdefault((found[1], found[2]), len(numbers) + 1)
    if not numbers:
        raise InputError("optimiser.layer_decay: the network's blocks are not known; leave it at 1")
    last = len(numbers)
    scales, depth = {}, 0
    for name in names:
        if name in block_of:
            depth = block_of[name]
            scales[name] = decay ** (last + 1 - depth)
        elif _BEFORE.search(name) and depth == 0:
            scales[name] = decay ** (last + 1)
        else:  # between two stages it counts as the block before, after the last as the head
            scales[name] = decay ** (last + 1 - depth) if depth < last else 1.0
    return scales

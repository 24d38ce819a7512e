"""What both forms of the attention op agree on: dtypes, the memory order of results, and the value of the mask."""

import torch
from torch import Tensor

MASKED = -100.0
"""Added to the score of a query and a key of different regions, as in torchvision's Swin; not minus infinity."""


def accumulator(q: Tensor) -> torch.dtype:
    """The dtype of scores, sums and row statistics."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def empty_like_tokens(tensor: Tensor) -> Tensor:
    """Uninitialised (B, H, N, d), laid out (B, N, H, d) in memory, whatever the strides of ``tensor``.

    So ``.transpose(1, 2).flatten(2)``, which the projection after an attention takes, is a view."""
    batch, heads, tokens, size = tensor.shape
    return tensor.new_empty((batch, tokens, heads, size)).transpose(1, 2)

"""What autocast would do to the arguments of an op that it does not know."""

from typing import Any

import torch
from torch import Tensor


def as_autocast(*tensors: Tensor | None) -> tuple[Any, ...]:
    """``tensors`` in autocast's dtype where autocast is on for their device, else unchanged.

    As for ``F.linear``, float64 stays; None stays None. The cast is differentiable as often as needed.
    """
    device = next(t.device.type for t in tensors if t is not None)
    # PyTorch 2.14 raises for devices that have no autocast
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors)

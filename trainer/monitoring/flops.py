"""How many floating point operations a training step takes, and what a device could do: their ratio is the MFU."""

import copy

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..loss_module import LossModule
from ..methods import Method

# dense bf16 FLOP/s of a device, by a part of its name; vendors' data sheets, without sparsity
PEAK_BF16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 5090": 210e12,
}


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a device, or None when it is not in the table."""
    return next((flops for name, flops in PEAK_BF16.items() if name in device_name), None)


def step_flops(model: nn.Module, method: Method, frames: int, size: int) -> float:
    """Floating point operations of one clip's part of a training step, the mean over the method's period.

    Counted, not estimated: forward, inner gradient and backward run on the meta device, where no arithmetic is done.
    Convolutions and matrix products count, two operations a multiply-add.

    Args:
        model: the network; it is copied, not changed.
        method: its losses decide how many passes there are.
        frames, size: T and h = w of a clip.
    """
    period = getattr(method, "gp_every", 1)
    by_kind = {penalise: _count(model, method, frames, size, penalise) for penalise in {method.penalises(0), False}}
    return sum(by_kind[method.penalises(step)] for step in range(period)) / period


class _Counter(TorchDispatchMode):
    """Adds up torch's own formulas. Its ``FlopCounterMode`` hooks modules, which an inner ``autograd.grad`` forbids."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs or {}, out_val=out)
        return out


def _count(model: nn.Module, method: Method, frames: int, size: int, penalise: bool) -> float:
    bare = copy.deepcopy(model).to("meta")
    clips = 2  # more than one, for batch norm
    kind = {"device": "meta", "dtype": next(bare.parameters()).dtype}
    motion = torch.empty((clips, 3, frames, size, size), **kind)
    static = torch.empty_like(motion).requires_grad_(penalise) if method.static != "none" else None
    target = torch.empty(clips, dtype=torch.int64, device="meta")
    with _Counter() as counter:
        loss, *_ = LossModule(bare, method)(motion, static, target, penalise)
        loss.backward()
    return counter.total / clips

"""How many floating point operations a training step takes, and what a device could do: their ratio is the MFU."""

import copy

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..batch import PEOPLE, Batch
from ..loss_module import LossModule
from ..methods import Method
from ..passes import backward_in_passes, step_passes

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


def step_flops(
    model: nn.Module,
    method: Method,
    frames: int,
    size: int,
    *,
    head: str = "",
    method_module: nn.Module | None = None,
    tables: dict[str, Tensor] | None = None,
    second_share: float = 0.0,
) -> float:
    """Floating point operations of one clip's part of a training step, the mean over the method's period.

    Counted, not estimated: forward, inner gradient and backward run on the meta device, where no arithmetic is done.
    Convolutions and matrix products count, two operations a multiply-add.

    Args:
        model: the network; it and ``method_module`` are copied, not changed.
        method: its losses decide how many passes there are.
        frames, size: T and h = w of a clip.
        head: name of the network's last layer, for methods that want its input.
        method_module: what ``method.module`` made.
        tables: what ``method.tables`` returned, (N,...) each; only shapes are read.
        second_share: weight of the clips' second view; above 0 its pass counts, too.
    """
    bare, module = copy.deepcopy((model, method_module))
    bare, module = bare.to("meta"), None if module is None else module.to("meta")
    loss_module = LossModule(bare, method, head=head, method_module=module)
    clips = _meta_clips(method, frames, size, next(bare.parameters()).dtype, tables or {})
    if second_share:
        clips = clips.with_second_view(clips.motion, second_share)
    by_kind = {penalise: _count(loss_module, clips, penalise) for penalise in {method.penalises(0), False}}
    return sum(by_kind[method.penalises(step)] for step in range(method.period)) / method.period


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


def _meta_clips(method: Method, frames: int, size: int, dtype: torch.dtype, tables: dict[str, Tensor]) -> Batch:
    clips = 4  # batch norm needs more than one, a method up to four
    motion = torch.empty((clips, 3, frames, size, size), device="meta", dtype=dtype)
    target = torch.empty(clips, dtype=torch.int64, device="meta")
    per_sample = {name: table.new_empty((clips, *table.shape[1:]), device="meta") for name, table in tables.items()}
    if method.needs_people:
        per_sample[PEOPLE] = torch.empty((clips, 1, frames, size, size), dtype=torch.uint8, device="meta")
    static = motion[:, :, :1] if method.static != "none" else None
    return Batch(motion, static, target, None, per_sample)


def _count(loss_module: LossModule, clips: Batch, penalise: bool) -> float:
    passes = step_passes(loss_module.method, len(clips), penalise, second_share=clips.second_share)
    with _Counter() as counter:
        backward_in_passes(loss_module, clips, passes)
    return counter.total / len(clips)

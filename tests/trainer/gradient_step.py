"""A step of the trainer's passes on a network, without a run around it, and a meter of live bytes and operations."""

import weakref

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from unstill.trainer.batch import Batch
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Method
from unstill.trainer.passes import backward_in_passes, step_passes


def gradient_step(model: nn.Module, method: Method, motion: Tensor, target: Tensor, *, parts: int = 1) -> None:
    """Gradients of the method's loss in ``model``, in the order of training; the static pass in ``parts``."""
    static = None if method.static == "none" else motion[:, :, motion.shape[2] // 2, None]
    passes = step_passes(method, len(motion), method.penalises(0), static_parts=parts)
    batch = Batch(motion, static, target)
    backward_in_passes(LossModule(model, method), batch, passes, parameters=list(model.parameters()))


class Meter(TorchDispatchMode):
    """Bytes of the live storages that operations made, their peak, and floating point operations.

    Works on the meta device, where nothing is computed: what a custom op allocates inside does not count there.
    """

    def __init__(self):
        super().__init__()
        self.flops = self._now = self.peak = 0
        self._alive = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in tree_leaves(args):  # what was there before is not the step's
            if isinstance(tensor, Tensor):
                self._alive.add(tensor.untyped_storage()._cdata)
        out = func(*args, **kwargs or {})
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs or {}, out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._track(tensor.untyped_storage())
        return out

    def _track(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._alive:
            self._alive.add(storage._cdata)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size

"""ALBAR's step with the motion loss's backward before the static pass, and a meter of live bytes and operations.

The weights are the published recipe's. Sequential order: only one pass's graph is alive at a time.
"""

import weakref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from unstill.trainer.models.observed_network import ObservedNetwork

W_ADV, W_ENT, W_GP, EPS = 1.0, 4.25, 10.0, 1e-12


def cross_entropy_step(model: nn.Module, motion: Tensor, target: Tensor) -> None:
    F.cross_entropy(model(motion), target).backward()


def albar_step(model: nn.Module, motion: Tensor, target: Tensor, *, parts: int = 1, closed_calls: bool = True) -> None:
    """Gradients of ALBAR's loss in ``model``; the static pass in ``parts`` of the batch."""
    network = ObservedNetwork(model, "", None, None, closed_calls)
    F.cross_entropy(network(motion), target).backward()
    still, parameters = motion[:, :, motion.shape[2] // 2, None].expand_as(motion), list(model.parameters())
    for static, labels in zip(still.chunk(parts), target.chunk(parts), strict=True):
        static_loss(network, static.contiguous().requires_grad_(), labels).div(parts).backward(inputs=parameters)


def static_loss(network: ObservedNetwork, static: Tensor, target: Tensor) -> Tensor:
    z = network(static, twice_differentiable=True)
    log_p = z.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    (g,) = torch.autograd.grad(z.sum(), static, create_graph=True)
    norm = (g.square().sum((1, 2, 3)) + EPS).sqrt().mean()
    return -W_ADV * F.cross_entropy(z, target) - W_ENT * entropy + W_GP * norm


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

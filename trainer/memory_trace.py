"""The bytes that a step allocates and frees, in order, found without computing anything.

The step's own code runs on fake tensors (shapes and dtypes, no data) while a dispatch mode records when each storage
appears and when the last reference to it goes. Any sequence of forwards and backwards is followed as it is.

A fake batch costs nothing, so the batch has a large prime factor: a storage grows with the batch where its bytes are a
multiple of that prime. One trace then gives the bytes at every moment as ``fixed + clips * per_clip``, for any batch.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRIMES = (101, 103, 107, 109, 113, 127, 131, 137, 139, 149)
# what CUDA's autocast computes in float32 and a CPU's does not, as far as networks for video call it; see
# https://docs.pytorch.org/docs/stable/amp.html
_FLOAT32 = {
    *(F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, torch.log_softmax, Tensor.log_softmax),
    *(F.layer_norm, torch.layer_norm, F.group_norm, torch.group_norm, F.softplus),
    *(torch.exp, Tensor.exp, torch.log, Tensor.log, torch.pow, Tensor.pow, Tensor.__pow__, torch.rsqrt, Tensor.rsqrt),
    *(torch.sum, Tensor.sum, torch.norm, Tensor.norm, torch.linalg.vector_norm, torch.cumsum, Tensor.cumsum),
    *(torch.reciprocal, Tensor.reciprocal, F.cosine_similarity, F.mse_loss, F.l1_loss, F.kl_div, F.nll_loss),
}


def prime_for(sizes: set[int]) -> int:
    """A prime that divides none of the sizes (elements of weights, extents of a clip, numbers of classes)."""
    return next(prime for prime in PRIMES if not any(size and size % prime == 0 for size in sizes))


class Trace(TorchDispatchMode):
    """Records the storages of everything that is computed while it is active.

    Args:
        prime: marks storages that grow with the batch.
        clips: the traced batch, a multiple of ``prime``.
    """

    def __init__(self, prime: int, clips: int):
        super().__init__()
        self._prime, self._clips = prime, clips
        self._living: dict[int, tuple[weakref.ref, int]] = {}  # storage -> (its end, row)
        self._bytes: list[int] = []
        self._span: list[list[int]] = []  # birth and death of each storage, as moments
        self._now = 0
        self._backwards: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0  # what the host reads: on a CPU, whether the step is bad
        out = func(*args, **kwargs or {})
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._living or not storage.nbytes():
            return
        self._now += 1
        row = len(self._bytes)
        self._bytes.append(storage.nbytes())
        self._span.append([self._now, 0])
        self._living[key] = weakref.ref(storage, partial(self._end, key)), row

    def mark_backward(self) -> None:
        """A backward starts now: what lives was saved for it, or will outlast it."""
        self._backwards.append(self._now)

    def lines(self) -> tuple[np.ndarray, np.ndarray]:
        """Live bytes as ``fixed + clips * per_clip``.

        What outlives the step (weights, optimiser state) counts from its first moment: the second step is like that.

        Returns:
            int64 (moments, 2) of (fixed, per_clip) at every moment, and int64 (backwards, 2) where a backward began.
        """
        size, span = np.array(self._bytes, np.int64), np.array(self._span, np.int64)
        grows = size % self._prime == 0
        stays = span[:, 1] == 0
        change = np.zeros((self._now + 1, 2), np.int64)
        amount = np.stack([np.where(grows, 0, size), np.where(grows, size // self._clips, 0)], 1)
        np.add.at(change, np.where(stays, 0, span[:, 0]), amount)
        np.subtract.at(change, span[~stays, 1], amount[~stays])
        live = change.cumsum(0)
        return live, live[self._backwards]

    def _end(self, key: int, _) -> None:
        _, row = self._living.pop(key)
        self._now += 1
        self._span[row][1] = self._now


class _Calls(TorchFunctionMode):
    """Tells a trace when a backward starts, and applies CUDA's float32 list under a CPU's autocast.

    Args:
        trace: is told.
        cuda: whether the step would run on a GPU.
    """

    def __init__(self, trace: Trace, cuda: bool):
        super().__init__()
        self._trace, self._cuda = trace, cuda

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.backward:
            self._trace.mark_backward()
        elif self._cuda and func in _FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = tuple(value.float() if _is_lower(value) else value for value in args)
        return func(*args, **kwargs or {})


def _is_lower(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)


@contextmanager
def tracing(prime: int, clips: int, *, cuda: bool) -> Iterator[Trace]:
    """Record what is done inside, on fake tensors; random generators are left as they were.

    Args:
        prime, clips: see ``Trace``.
        cuda: count as a GPU would: its autocast computes more in float32.
    """
    trace = Trace(prime, clips)
    with torch.random.fork_rng(devices=[]), _Calls(trace, cuda), trace:
        yield trace

"""The bytes that a step allocates and frees, in order, without computing anything.

The step's own code runs on fake tensors (shapes and dtypes, no data) while a dispatch mode records when each storage
appears and when the last reference to it goes. Any sequence of forwards and backwards is followed as it is.

A fake batch costs nothing, so the batch has a large prime factor: a storage grows with the batch where its bytes are a
multiple of that prime. One trace then gives the bytes at every moment as ``fixed + clips * per_clip``, for any batch.

Not counted: cuDNN's and cuBLAS's workspaces, and what an allocator loses between blocks.
"""

import math
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..kernels.cuda_memory import cuda_memory

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
_CONVOLUTIONS = (
    *("aten::convolution", "aten::convolution_backward"),
    *("unstill::convolution", "unstill::convolution_dgrad", "unstill::convolution_wgrad"),
)


def prime_for(sizes: set[int]) -> int:
    """A prime that divides none of the sizes (elements of weights, extents of a clip, numbers of classes)."""
    return next(prime for prime in PRIMES if not any(size and size % prime == 0 for size in sizes))


class Lines(NamedTuple):
    """Live bytes as (fixed, per_clip), each row ``fixed + clips * per_clip``.

    Attributes:
        start: int64 (2,), when the step starts.
        backwards: int64 (backwards, 2), when each backward starts.
        all: int64 (moments, 2).
    """

    start: np.ndarray
    backwards: np.ndarray
    all: np.ndarray


class Trace(TorchDispatchMode):
    """Records the storages of everything that is computed while it is active.

    Args:
        prime: marks storages that grow with the batch.
        clips: the traced batch, a multiple of ``prime``.
        cuda: whether the step would run on a GPU: what this project's operators allocate there besides their results is
            added. On a CPU the buffers inside a convolution are.
    """

    def __init__(self, prime: int, clips: int, *, cuda: bool):
        super().__init__()
        self._prime, self._clips, self._cuda = prime, clips, cuda
        self._living: dict[int, weakref.ref] = {}  # storage -> its end
        self._with: defaultdict[int, list[int]] = defaultdict(list)  # storage -> what ends with it
        self._bytes: list[int] = []
        self._span: list[list[int]] = []  # birth and death of each storage, as moments
        self._now = self._start = 0
        self._backwards: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0  # what the host reads: on a CPU, whether the step is bad
        out = func(*args, **kwargs or {})
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        if not self._cuda and (name := func._schema.name) in _CONVOLUTIONS:
            for row in [self._born(size) for size in _convolution_buffers(name, args, out)]:
                self._died(row)
        if self._cuda:
            hidden = cuda_memory(func._schema.name, args, out)
            for tensor, size in hidden.kept:
                self._with[tensor.untyped_storage()._cdata].append(self._born(size))
            if hidden.inside:
                self._died(self._born(hidden.inside))
        return out

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._living and storage.nbytes():
            self._living[key] = weakref.ref(storage, partial(self._end, key, self._born(storage.nbytes())))

    def mark_start(self) -> None:
        """The step starts now: what lives was made before it."""
        self._start = self._now

    def mark_backward(self) -> None:
        """A backward starts now: what lives was saved for it, or will outlast it."""
        self._backwards.append(self._now)

    def lines(self) -> Lines:
        """Live bytes so far.

        What outlives the step (weights, optimiser state) counts from its first moment: the second step is like that.
        """
        size, span = np.array(self._bytes, np.int64), np.array(self._span, np.int64)
        grows, stays = size % self._prime == 0, span[:, 1] == 0
        amount = np.stack([np.where(grows, 0, size), np.where(grows, size // self._clips, 0)], 1)
        change = np.zeros((self._now + 1, 2), np.int64)
        np.add.at(change, np.where(stays, 0, span[:, 0]), amount)
        np.subtract.at(change, span[~stays, 1], amount[~stays])
        live = change.cumsum(0)
        return Lines(live[self._start], live[self._backwards], live)

    def _born(self, size: int) -> int:
        self._now += 1
        self._bytes.append(size)
        self._span.append([self._now, 0])
        return len(self._span) - 1

    def _died(self, row: int) -> None:
        self._now += 1
        self._span[row][1] = self._now

    def _end(self, key: int, row: int, _) -> None:
        del self._living[key]
        for each in (*self._with.pop(key, ()), row):
            self._died(each)


def _convolution_buffers(name: str, args: tuple, out) -> list[int]:
    """Bytes that a convolution on a CPU allocates and frees inside, as measured with torch 2.14.

    oneDNN copies inputs and weights to its own layout, and sums weight gradients in up to four more copies of the
    weight. float64 in three dimensions unfolds the input instead: the whole batch, or clip by clip with a dilation.
    """
    if name == "unstill::convolution_wgrad":
        given, result, weight, _, _, dilation = args[:6]
    elif name == "unstill::convolution_dgrad":
        result, weight, given, _, _, dilation = args[:6]
    elif name == "aten::convolution_backward":
        result, given, weight, _, _, _, dilation = args[:7]
    else:  # aten::convolution has a bias before the geometry
        given, weight, result, dilation = args[0], args[1], out, args[-4 if name == "aten::convolution" else -2]
    if weight.dtype == torch.float64 and weight.ndim == 5:
        rows = math.prod(weight.shape[1:])
        columns = result.nbytes // result.shape[1] // (result.shape[0] if max(dilation) > 1 else 1)
        return [] if rows == weight.shape[1] else [rows * columns]
    if name in ("unstill::convolution", "aten::convolution"):
        return [given.nbytes, weight.nbytes]
    return [given.nbytes, result.nbytes, 5 * weight.nbytes]


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
    trace = Trace(prime, clips, cuda=cuda)
    with torch.random.fork_rng(devices=[]), _Calls(trace, cuda), trace:
        yield trace

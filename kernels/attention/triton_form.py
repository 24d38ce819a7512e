"""The Triton form of attention: which kernels a pass launches, with which tiles, and what it allocates."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from ..launch_configs import ATTENTION_PROGRAMS, ATTENTION_TILES, attention_tile_for, on_device_of
from .layout import accumulator, empty_like_tokens
from .triton_kernels import bias_kernel, columns_kernel, forward_kernel, queries_kernel, rows_kernel


class Launch(NamedTuple):
    """One kernel of one pass, as it is launched and as ``kernels/aot.py`` compiles it."""

    name: str
    """forward, rows, columns or bias; the last three with "2" in the double backward, which may have queries2 too."""
    kernel: Any
    """A ``triton.JITFunction``."""
    grid: tuple[int, ...]
    arguments: tuple
    constants: dict
    options: dict
    """num_warps and num_stages."""


def addressable(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy if a kernel cannot address it by a window's, a head's and a token's stride."""
    near = tensor.shape[2] * tensor.stride(2) < 2**31  # offsets inside one window and head are 32-bit
    return tensor if tensor.stride(3) == 1 and near else empty_like_tokens(tensor).copy_(tensor)


def with_strides(tensor: Tensor | None) -> tuple:
    return (None,) * 4 if tensor is None else (tensor, *tensor.stride()[:3])


def common(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, regions: Tensor | None, scale: float):
    """(arguments, constants) of every kernel: q, k, v; bias, regions, their number, scale."""
    tokens = (*with_strides(addressable(q)), *with_strides(addressable(k)), *with_strides(addressable(v)))
    bias = None if bias is None else bias.contiguous()
    score = (bias, None if regions is None else regions.contiguous(), 1 if regions is None else len(regions), scale)
    (_, heads, queries, size), keys = q.shape, k.shape[2]
    constants = dict(
        M=queries, N=keys, H=heads, D=size, BLOCK_D=max(16, triton.next_power_of_2(size)),
        ACC=tl.float64 if q.dtype == torch.float64 else tl.float32,
        WIDEN=knobs.runtime.interpret and q.dtype == torch.bfloat16,
    )  # fmt: skip
    return tokens, score, constants


def launch(
    name: str, kernel, arguments: tuple, constants: dict, batch: int, bias: Tensor | None, splits: int = 0
) -> Launch:
    tile = attention_tile_for(name, constants["BLOCK_D"], bias is not None)
    constants = constants | dict(BLOCK_M=tile.queries, BLOCK_N=tile.keys)
    down, across = triton.cdiv(constants["M"], tile.queries), triton.cdiv(constants["N"], tile.keys)
    if kernel is bias_kernel:
        grid = (down * across, constants["H"], splits)
    else:
        grid = ((across if kernel is columns_kernel else down) * batch * constants["H"],)
    return Launch(name, kernel, grid, arguments, constants, dict(num_warps=tile.warps, num_stages=tile.stages))


def forward_launches(q, k, v, bias, regions, scale, out, lse) -> Iterator[Launch]:
    tokens, score, constants = common(q, k, v, bias, regions, scale)
    yield launch("forward", forward_kernel, (*tokens, *score, out, lse), constants, len(q), bias)


def derivative_launches(
    do, q, k, v, a, b, c, e, bias, regions, scale, out, lse, delta, g_do, g_q, g_k, g_v, g_bias, t, x
) -> Iterator[Launch]:
    """Of the backward (a, b, c, e, g_do, t, x are None) or of the double backward, in their order.

    ``g_bias`` is None if it is not wanted, else (splits, H, M, N). The first launch writes what the others read."""
    tokens, score, constants = common(q, k, v, bias, regions, scale)
    second = "" if a is None else "2"
    inputs = (*tokens, *with_strides(addressable(do)))
    for cotangent in (a, b, c):
        inputs += with_strides(None if cotangent is None else addressable(cotangent))
    inputs += (None if e is None else e.contiguous(), *score)
    rows = (*inputs, out, lse, delta, g_q, g_do, t, x)
    split = a is not None and constants["BLOCK_D"] in ATTENTION_TILES["queries2"]
    yield launch(f"rows{second}", rows_kernel, rows, constants | dict(SPLIT=split), len(q), bias)
    if split:
        yield launch("queries2", queries_kernel, (*inputs, lse, delta, g_q, t, x), constants, len(q), bias)
    columns = (*inputs, lse, delta, g_k, g_v, t, x)
    yield launch(f"columns{second}", columns_kernel, columns, constants, len(q), bias)
    if g_bias is not None:
        arguments = (*inputs, lse, delta, g_bias, t, x, len(q))
        yield launch(f"bias{second}", bias_kernel, arguments, constants, len(q), bias, splits=len(g_bias))


def run(launches: Iterator[Launch], tensor: Tensor) -> None:
    with on_device_of(tensor):
        for one in launches:
            one.kernel[one.grid](*one.arguments, **one.constants, **one.options)


def empty_statistic(q: Tensor) -> Tensor:
    """Uninitialised (B, H, M): one number per query."""
    return q.new_empty(q.shape[:3], dtype=accumulator(q))


def partial_bias(q: Tensor, bias: Tensor, name: str) -> Tensor:
    """Uninitialised (splits, H, M, N) for ``bias_kernel``."""
    return q.new_empty((partial_bias_splits(q, bias, name), *bias.shape), dtype=accumulator(q))


def partial_bias_splits(q: Tensor, bias: Tensor, name: str) -> int:
    """As many splits of the windows as fill a GPU."""
    heads, queries, keys = bias.shape
    tile = attention_tile_for(name, max(16, triton.next_power_of_2(q.shape[3])), True)
    tiles = heads * triton.cdiv(queries, tile.queries) * triton.cdiv(keys, tile.keys)
    return min(len(q), triton.cdiv(ATTENTION_PROGRAMS, tiles))


def attention_triton(q, k, v, bias, regions, scale):
    """The CUDA form of the forward: O and lse (B, H, M), the base-2 logarithm of the softmax's denominators."""
    out, lse = empty_like_tokens(q), empty_statistic(q)
    run(forward_launches(q, k, v, bias, regions, scale, out, lse), q)
    return out, lse


def attention_backward_triton(do, q, k, v, bias, regions, out, lse, scale, need_bias):
    """The CUDA form of the backward: dQ, dK, dV, dB (empty unless ``need_bias``) and delta (B, H, M)."""
    g_q, g_k, g_v, delta = empty_like_tokens(q), empty_like_tokens(k), empty_like_tokens(v), empty_statistic(q)
    g_bias = partial_bias(q, bias, "bias") if need_bias else None
    second = dict(a=None, b=None, c=None, e=None, g_do=None, t=None, x=None)
    first = dict(out=out, lse=lse, delta=delta, g_q=g_q, g_k=g_k, g_v=g_v, g_bias=g_bias)
    run(derivative_launches(do, q, k, v, bias=bias, regions=regions, scale=scale, **first, **second), q)
    return g_q, g_k, g_v, q.new_empty(0) if g_bias is None else g_bias.sum(0).to(bias.dtype), delta


def attention_double_backward_triton(a, b, c, e, do, q, k, v, bias, regions, out, lse, delta, scale, need_bias):
    """The CUDA form of the double backward: g_dO, g_Q, g_K, g_V, and g_B (empty unless ``need_bias``)."""
    g_do, g_q, g_k, g_v = empty_like_tokens(do), empty_like_tokens(q), empty_like_tokens(k), empty_like_tokens(v)
    g_bias = partial_bias(q, bias, "bias2") if need_bias else None
    inputs = (do, q, k, v, a, b, c, e, bias, regions, scale, out, lse, delta)
    run(derivative_launches(*inputs, g_do, g_q, g_k, g_v, g_bias, empty_statistic(q), empty_statistic(q)), q)
    return g_do, g_q, g_k, g_v, q.new_empty(0) if g_bias is None else g_bias.sum(0).to(bias.dtype)

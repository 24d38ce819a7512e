"""Attention and its derivatives in Triton: tiles of queries and keys, nothing of size M x N in global memory.

The formulas are in ``attention``'s package docstring. Four kernels, three of them with a first-order and a second-order
mode (the second when there are cotangents a, b, c), and a fifth for large heads:

    forward_kernel   a block of queries of one window and head    O, lse (log2 of the softmax's denominators)
    rows_kernel      a block of queries of one window and head    dQ, delta     or   g_dO, g_Q, t, x
    columns_kernel   a block of keys of one window and head       dK, dV        or   g_K, g_V
    bias_kernel      a tile of one head's bias, over windows      dB            or   g_B
    queries_kernel   a block of queries of one window and head                       g_Q, if d > 64

Every result has one writer and a fixed order of summation; there are no atomics. ``bias_kernel`` splits the windows
when the tiles of the bias are too few for a GPU; its partial sums are added afterwards.

One sweep over the keys is enough for t, x, g_dO and g_Q together. With delta = rowsum(P * dP) from the first order,
G = dO c^T and Y = P*G + T*dS: rowsum(dS) = 0, so x = rowsum(Y) does not depend on t, and

    W = P*(G - x) + (T - t)*dS        g_dO = (P*T) V + P c - t O        g_Q = s (Y K + dS b - x P K - t dS K)

Three things that float64 does not show and bfloat16 does:

* U and W do not change when a number per row is subtracted from T or G (t and x change with it). The sweep subtracts
  what T and G are for the mean of the first block of K, b and c. Without that, keys with a common mean, which every
  trained network has, cost a factor 5 to 50 of precision by cancellation.
* delta = rowsum(dO * O) with a rounded O is wrong by what the rows of dS then sum to, and a common mean of the keys
  multiplies the error. The first-order sweep adds that sum to delta and corrects dQ with the mean key.
* Triton's interpreter truncates to bfloat16 and multiplies bfloat16 as bit patterns: ``WIDEN`` replaces both.

The kernels are written for any floating point dtype, and the interpreter runs them in float32 and float64; on a GPU
they serve the 16-bit ones only (``operators.is_fused``). In float32 the second order needs more registers than there
are from d = 64 on, whatever the tile (sm_90: 64 to 3,120 bytes spilled in TF32x3).

Queries that do not exist get lse = inf, so P = 0; keys that do not exist get a score of -inf. No other mask is needed.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# Triton's types do not know compile-time branches, and take index tuples and reductions for other things.

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from ..launch_configs import ATTENTION_PROGRAMS, ATTENTION_TILES, attention_tile_for, on_device_of
from .layout import MASKED, accumulator, empty_like_tokens

LOG2E = tl.constexpr(1.4426950408889634)
MASK = tl.constexpr(MASKED)
UNSPECIALISED = ("n_regions", "windows")


# ------------------------------------------------------------------------------------------------- in the kernels


@triton.jit
def rounded(value, dtype: tl.constexpr, WIDEN: tl.constexpr):
    """``value`` in ``dtype``, to nearest. ``WIDEN``: bfloat16 in the interpreter, whose own cast cuts the bits off."""
    if WIDEN and value.dtype == tl.float32:
        bits = value.to(tl.uint32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        value = (bits & 0xFFFF0000).to(tl.uint32).to(tl.float32, bitcast=True)
    return value.to(dtype)


@triton.jit
def product(left, right, total, ACC: tl.constexpr, WIDEN: tl.constexpr):
    """left @ right, added to ``total`` unless that is None; ``left`` is rounded to the dtype of ``right``."""
    left = rounded(left, right.dtype, WIDEN)
    if WIDEN:  # the interpreter cannot multiply bfloat16
        left, right = left.to(ACC), right.to(ACC)
    return tl.dot(left, right, total, out_dtype=ACC)


@triton.jit
def of_head(pointer, window, head, per_window, per_head):
    """The first token of one window and head; 64-bit, because a batch may have more than 2**31 elements."""
    return pointer + window.to(tl.int64) * per_window + head.to(tl.int64) * per_head


@triton.jit
def block_of(tokens, stride, COUNT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Offsets of a block of tokens, (tokens, BLOCK_D), and which of them exist."""
    channels = tl.arange(0, BLOCK_D)
    exists = (tokens < COUNT)[:, None]
    if BLOCK_D != D:
        exists = exists & (channels < D)[None, :]
    return tokens[:, None] * stride + channels[None, :], exists


@triton.jit
def load_block(pointer, tokens, stride, COUNT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):
    offsets, exists = block_of(tokens, stride, COUNT, D, BLOCK_D)
    return tl.load(pointer + offsets, mask=exists, other=0.0)


@triton.jit
def store_block(
    pointer, value, window, head, tokens,
    COUNT: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Into a tensor that ``empty_like_tokens`` made: (B, tokens, H, d) in memory."""
    offsets, exists = block_of(tokens, H * D, COUNT, D, BLOCK_D)
    start = of_head(pointer, window, head, COUNT * H * D, D)
    tl.store(start + offsets, rounded(value, pointer.dtype.element_ty, WIDEN), mask=exists)


@triton.jit
def mean_block(pointer, tokens, stride, COUNT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, ACC: tl.constexpr):
    """Mean of the existing tokens of a block, (BLOCK_D,)."""
    total = tl.sum(load_block(pointer, tokens, stride, COUNT, D, BLOCK_D).to(ACC), 0)
    return total / min(COUNT, tokens.shape[0])


@triton.jit
def dot_rows(block, vector, ACC: tl.constexpr):
    return tl.sum(block.to(ACC) * vector[None, :], 1)


@triton.jit
def load_pairs(pointer, head, row, column, M: tl.constexpr, N: tl.constexpr, ACC: tl.constexpr):
    """A tile of an (H, M, N) tensor; ``row`` and ``column`` broadcast to its shape."""
    offsets = head.to(tl.int64) * (M * N) + row * N + column
    return tl.load(pointer + offsets, mask=(row < M) & (column < N), other=0.0).to(ACC)


@triton.jit
def scores(
    raw, row, column, scale, bias, regions, n_regions, window, head,
    M: tl.constexpr, N: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Scores in base 2 from the products ``raw`` of queries and keys; ``row`` and ``column`` broadcast to its shape."""
    score = raw * (scale * LOG2E)
    if bias is not None:
        score += load_pairs(bias, head, row, column, M, N, ACC) * LOG2E
    if regions is not None:
        own = regions + (window % n_regions) * N
        of_row = tl.load(own + row, mask=row < N, other=0)
        of_column = tl.load(own + column, mask=column < N, other=0)
        score += tl.where(of_row != of_column, MASK * LOG2E, 0.0)
    return tl.where(column < N, score, float("-inf"))


@triton.jit
def window_head_and_block(COUNT: tl.constexpr, BLOCK: tl.constexpr, H: tl.constexpr):
    """(window * H + head, window, head, the block's tokens); one grid axis, because the others end at 65535 programs.

    Blocks of one window and head are neighbours, so that what they share stays in the L2 cache."""
    blocks: tl.constexpr = (COUNT + BLOCK - 1) // BLOCK
    number = tl.program_id(0) // blocks
    return number, number // H, number % H, tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)


# ------------------------------------------------------------------------------------------------- the kernels


@triton.jit(do_not_specialize=UNSPECIALISED)
def forward_kernel(
    q, q_b, q_h, q_n, k, k_b, k_h, k_n, v, v_b, v_h, v_n, bias, regions, n_regions, scale, out, lse,
    M: tl.constexpr, N: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ACC: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    number, window, head, rows = window_head_and_block(M, BLOCK_M, H)
    k = of_head(k, window, head, k_b, k_h)
    v = of_head(v, window, head, v_b, v_h)
    own = load_block(of_head(q, window, head, q_b, q_h), rows, q_n, M, D, BLOCK_D)
    top = tl.full((BLOCK_M,), float("-inf"), ACC)
    mass = tl.zeros((BLOCK_M,), ACC)
    total = tl.zeros((BLOCK_M, BLOCK_D), ACC)
    for start in range(0, N, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        key = load_block(k, columns, k_n, N, D, BLOCK_D)
        value = load_block(v, columns, v_n, N, D, BLOCK_D)
        raw = product(own, tl.trans(key), None, ACC, WIDEN)
        score = scores(raw, rows[:, None], columns[None, :], scale, bias, regions, n_regions, window, head, M, N, ACC)
        higher = tl.maximum(top, tl.max(score, 1))
        p = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(top - higher)
        mass = mass * shrink + tl.sum(p, 1)
        total = product(p, value, total * shrink[:, None], ACC, WIDEN)
        top = higher
    store_block(out, total / mass[:, None], window, head, rows, M, H, D, BLOCK_D, WIDEN)
    tl.store(lse + number.to(tl.int64) * M + rows, top + tl.log2(mass), mask=rows < M)


@triton.jit(do_not_specialize=UNSPECIALISED)
def rows_kernel(
    q, q_b, q_h, q_n, k, k_b, k_h, k_n, v, v_b, v_h, v_n, do, do_b, do_h, do_n,
    a, a_b, a_h, a_n, b, b_b, b_h, b_n, c, c_b, c_h, c_n, e,
    bias, regions, n_regions, scale, out, lse, delta, g_q, g_do, t, x,
    M: tl.constexpr, N: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    SPLIT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ACC: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """First order: writes delta and dQ (into ``g_q``). Second: reads delta, writes g_dO, t, x and (not ``SPLIT``) g_Q.

    ``SPLIT`` leaves g_Q to ``queries_kernel``: 14 products instead of 11, but one accumulator instead of four."""
    number, window, head, rows = window_head_and_block(M, BLOCK_M, H)
    statistic = number.to(tl.int64) * M + rows
    exists = rows < M
    k = of_head(k, window, head, k_b, k_h)
    v = of_head(v, window, head, v_b, v_h)
    own = load_block(of_head(q, window, head, q_b, q_h), rows, q_n, M, D, BLOCK_D)
    slope = load_block(of_head(do, window, head, do_b, do_h), rows, do_n, M, D, BLOCK_D)
    base = tl.load(lse + statistic, mask=exists, other=float("inf"))
    first = tl.arange(0, BLOCK_N)
    mean_k = mean_block(k, first, k_n, N, D, BLOCK_D, ACC)
    if a is not None:
        b = of_head(b, window, head, b_b, b_h)
        c = of_head(c, window, head, c_b, c_h)
        own_a = load_block(of_head(a, window, head, a_b, a_h), rows, a_n, M, D, BLOCK_D)
        of_row = tl.load(delta + statistic, mask=exists, other=0.0)
        mean_b = mean_block(b, first, b_n, N, D, BLOCK_D, ACC)
        mean_c = mean_block(c, first, c_n, N, D, BLOCK_D, ACC)
        centre_t = (dot_rows(own_a, mean_k, ACC) + dot_rows(own, mean_b, ACC)) * scale
        centre_g = dot_rows(slope, mean_c, ACC)
        sum_t = tl.zeros((BLOCK_M,), ACC)
        sum_y = tl.zeros((BLOCK_M,), ACC)
        from_p = tl.zeros((BLOCK_M, BLOCK_D), ACC)
        total_do = tl.zeros((BLOCK_M, BLOCK_D), ACC)
    else:
        kept = load_block(of_head(out, window, head, M * H * D, D), rows, H * D, M, D, BLOCK_D)
        of_row = tl.sum(slope.to(ACC) * kept.to(ACC), 1)
        excess = tl.zeros((BLOCK_M,), ACC)
    from_ds = tl.zeros((BLOCK_M, BLOCK_D), ACC)
    total_q = tl.zeros((BLOCK_M, BLOCK_D), ACC)
    for start in range(0, N, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        key = load_block(k, columns, k_n, N, D, BLOCK_D)
        value = load_block(v, columns, v_n, N, D, BLOCK_D)
        raw = product(own, tl.trans(key), None, ACC, WIDEN)
        score = scores(raw, rows[:, None], columns[None, :], scale, bias, regions, n_regions, window, head, M, N, ACC)
        p = tl.exp2(score - base[:, None])
        ds = p * (product(slope, tl.trans(value), None, ACC, WIDEN) - of_row[:, None])
        if not SPLIT:
            from_ds = product(ds, key, from_ds, ACC, WIDEN)
        if a is not None:
            key_b = load_block(b, columns, b_n, N, D, BLOCK_D)
            key_c = load_block(c, columns, c_n, N, D, BLOCK_D)
            if not SPLIT:
                total_q = product(ds, key_b, total_q, ACC, WIDEN)
                from_p = product(p, key, from_p, ACC, WIDEN)
            total_do = product(p, key_c, total_do, ACC, WIDEN)
            raw = product(own_a, tl.trans(key), None, ACC, WIDEN)
            tangent = product(own, tl.trans(key_b), raw, ACC, WIDEN) * scale - centre_t[:, None]
            if e is not None:
                tangent += load_pairs(e, head, rows[:, None], columns[None, :], M, N, ACC)
            y = p * (product(slope, tl.trans(key_c), None, ACC, WIDEN) - centre_g[:, None]) + tangent * ds
            p *= tangent
            sum_t += tl.sum(p, 1)
            sum_y += tl.sum(y, 1)
            total_do = product(p, value, total_do, ACC, WIDEN)
            if not SPLIT:
                total_q = product(y, key, total_q, ACC, WIDEN)
        else:
            excess += tl.sum(ds, 1)
    if a is not None:
        # loaded here and not above: in the loop it would cost 16 registers, and the kernel would spill
        kept = load_block(of_head(out, window, head, M * H * D, D), rows, H * D, M, D, BLOCK_D)
        total_do -= sum_t[:, None] * kept.to(ACC)
        if not SPLIT:
            total_q -= sum_y[:, None] * from_p + sum_t[:, None] * from_ds
        store_block(g_do, total_do, window, head, rows, M, H, D, BLOCK_D, WIDEN)
        tl.store(t + statistic, sum_t + centre_t, mask=exists)
        tl.store(x + statistic, sum_y + centre_g, mask=exists)
    else:
        total_q = from_ds - excess[:, None] * mean_k[None, :]
        tl.store(delta + statistic, of_row + excess, mask=exists)
    if not SPLIT:
        store_block(g_q, total_q * scale, window, head, rows, M, H, D, BLOCK_D, WIDEN)


@triton.jit(do_not_specialize=UNSPECIALISED)
def queries_kernel(
    q, q_b, q_h, q_n, k, k_b, k_h, k_n, v, v_b, v_h, v_n, do, do_b, do_h, do_n,
    a, a_b, a_h, a_n, b, b_b, b_h, b_n, c, c_b, c_h, c_n, e,
    bias, regions, n_regions, scale, lse, delta, g_q, t, x,
    M: tl.constexpr, N: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ACC: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """g_Q of the second order, from the t and x that ``rows_kernel`` left with ``SPLIT``."""
    number, window, head, rows = window_head_and_block(M, BLOCK_M, H)
    statistic = number.to(tl.int64) * M + rows
    exists = rows < M
    k = of_head(k, window, head, k_b, k_h)
    v = of_head(v, window, head, v_b, v_h)
    b = of_head(b, window, head, b_b, b_h)
    c = of_head(c, window, head, c_b, c_h)
    own = load_block(of_head(q, window, head, q_b, q_h), rows, q_n, M, D, BLOCK_D)
    slope = load_block(of_head(do, window, head, do_b, do_h), rows, do_n, M, D, BLOCK_D)
    own_a = load_block(of_head(a, window, head, a_b, a_h), rows, a_n, M, D, BLOCK_D)
    base = tl.load(lse + statistic, mask=exists, other=float("inf"))
    of_row = tl.load(delta + statistic, mask=exists, other=0.0)
    sum_t = tl.load(t + statistic, mask=exists, other=0.0)
    sum_y = tl.load(x + statistic, mask=exists, other=0.0)
    total = tl.zeros((BLOCK_M, BLOCK_D), ACC)
    for start in range(0, N, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        key = load_block(k, columns, k_n, N, D, BLOCK_D)
        value = load_block(v, columns, v_n, N, D, BLOCK_D)
        key_b = load_block(b, columns, b_n, N, D, BLOCK_D)
        key_c = load_block(c, columns, c_n, N, D, BLOCK_D)
        raw = product(own, tl.trans(key), None, ACC, WIDEN)
        score = scores(raw, rows[:, None], columns[None, :], scale, bias, regions, n_regions, window, head, M, N, ACC)
        p = tl.exp2(score - base[:, None])
        ds = p * (product(slope, tl.trans(value), None, ACC, WIDEN) - of_row[:, None])
        total = product(ds, key_b, total, ACC, WIDEN)
        raw = product(own_a, tl.trans(key), None, ACC, WIDEN)
        tangent = product(own, tl.trans(key_b), raw, ACC, WIDEN) * scale - sum_t[:, None]
        if e is not None:
            tangent += load_pairs(e, head, rows[:, None], columns[None, :], M, N, ACC)
        of_c = product(slope, tl.trans(key_c), None, ACC, WIDEN) - sum_y[:, None]
        total = product(p * of_c + tangent * ds, key, total, ACC, WIDEN)
    store_block(g_q, total * scale, window, head, rows, M, H, D, BLOCK_D, WIDEN)


@triton.jit(do_not_specialize=UNSPECIALISED)
def columns_kernel(
    q, q_b, q_h, q_n, k, k_b, k_h, k_n, v, v_b, v_h, v_n, do, do_b, do_h, do_n,
    a, a_b, a_h, a_n, b, b_b, b_h, b_n, c, c_b, c_h, c_n, e,
    bias, regions, n_regions, scale, lse, delta, g_k, g_v, t, x,
    M: tl.constexpr, N: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ACC: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """dK and dV, or g_K and g_V. Its tiles are transposed, (BLOCK_N keys, BLOCK_M queries)."""
    number, window, head, columns = window_head_and_block(N, BLOCK_N, H)
    statistics = number.to(tl.int64) * M
    q = of_head(q, window, head, q_b, q_h)
    do = of_head(do, window, head, do_b, do_h)
    key = load_block(of_head(k, window, head, k_b, k_h), columns, k_n, N, D, BLOCK_D)
    value = load_block(of_head(v, window, head, v_b, v_h), columns, v_n, N, D, BLOCK_D)
    if a is not None:
        a = of_head(a, window, head, a_b, a_h)
        key_b = load_block(of_head(b, window, head, b_b, b_h), columns, b_n, N, D, BLOCK_D)
        key_c = load_block(of_head(c, window, head, c_b, c_h), columns, c_n, N, D, BLOCK_D)
    total_k = tl.zeros((BLOCK_N, BLOCK_D), ACC)
    total_v = tl.zeros((BLOCK_N, BLOCK_D), ACC)
    for start in range(0, M, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        exists = rows < M
        query = load_block(q, rows, q_n, M, D, BLOCK_D)
        slope = load_block(do, rows, do_n, M, D, BLOCK_D)
        base = tl.load(lse + statistics + rows, mask=exists, other=float("inf"))
        of_row = tl.load(delta + statistics + rows, mask=exists, other=0.0)
        raw = product(key, tl.trans(query), None, ACC, WIDEN)
        score = scores(raw, rows[None, :], columns[:, None], scale, bias, regions, n_regions, window, head, M, N, ACC)
        p = tl.exp2(score - base[None, :])
        ds = p * (product(value, tl.trans(slope), None, ACC, WIDEN) - of_row[None, :])
        if a is not None:
            query_a = load_block(a, rows, a_n, M, D, BLOCK_D)
            total_k = product(ds, query_a, total_k, ACC, WIDEN)
            sum_t = tl.load(t + statistics + rows, mask=exists, other=0.0)
            sum_y = tl.load(x + statistics + rows, mask=exists, other=0.0)
            raw = product(key, tl.trans(query_a), None, ACC, WIDEN)
            tangent = product(key_b, tl.trans(query), raw, ACC, WIDEN) * scale - sum_t[None, :]
            if e is not None:
                tangent += load_pairs(e, head, rows[None, :], columns[:, None], M, N, ACC)
            of_c = product(key_c, tl.trans(slope), None, ACC, WIDEN) - sum_y[None, :]
            ds = p * of_c + tangent * ds  # W
            p *= tangent  # U
        total_v = product(p, slope, total_v, ACC, WIDEN)
        total_k = product(ds, query, total_k, ACC, WIDEN)
    store_block(g_k, total_k * scale, window, head, columns, N, H, D, BLOCK_D, WIDEN)
    store_block(g_v, total_v, window, head, columns, N, H, D, BLOCK_D, WIDEN)


@triton.jit(do_not_specialize=UNSPECIALISED)
def bias_kernel(
    q, q_b, q_h, q_n, k, k_b, k_h, k_n, v, v_b, v_h, v_n, do, do_b, do_h, do_n,
    a, a_b, a_h, a_n, b, b_b, b_h, b_n, c, c_b, c_h, c_n, e,
    bias, regions, n_regions, scale, lse, delta, g_bias, t, x, windows,
    M: tl.constexpr, N: tl.constexpr, H: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ACC: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """One tile of one head's dB or g_B, summed over the windows ``program_id(2)``, + number of splits, ..."""
    head = tl.program_id(1)
    across: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    rows = tl.program_id(0) // across * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) % across * BLOCK_N + tl.arange(0, BLOCK_N)
    exists = rows < M
    if e is not None:
        added = load_pairs(e, head, rows[:, None], columns[None, :], M, N, ACC)
    total = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for step in range(tl.program_id(2), windows, tl.num_programs(2)):
        number = step * H + head
        window = number // H  # ``step`` as a tensor: the interpreter counts in Python's integers
        statistic = number.to(tl.int64) * M + rows
        query = load_block(of_head(q, window, head, q_b, q_h), rows, q_n, M, D, BLOCK_D)
        slope = load_block(of_head(do, window, head, do_b, do_h), rows, do_n, M, D, BLOCK_D)
        key = load_block(of_head(k, window, head, k_b, k_h), columns, k_n, N, D, BLOCK_D)
        value = load_block(of_head(v, window, head, v_b, v_h), columns, v_n, N, D, BLOCK_D)
        base = tl.load(lse + statistic, mask=exists, other=float("inf"))
        of_row = tl.load(delta + statistic, mask=exists, other=0.0)
        raw = product(query, tl.trans(key), None, ACC, WIDEN)
        score = scores(raw, rows[:, None], columns[None, :], scale, bias, regions, n_regions, window, head, M, N, ACC)
        p = tl.exp2(score - base[:, None])
        ds = p * (product(slope, tl.trans(value), None, ACC, WIDEN) - of_row[:, None])
        if a is not None:
            query_a = load_block(of_head(a, window, head, a_b, a_h), rows, a_n, M, D, BLOCK_D)
            key_b = load_block(of_head(b, window, head, b_b, b_h), columns, b_n, N, D, BLOCK_D)
            key_c = load_block(of_head(c, window, head, c_b, c_h), columns, c_n, N, D, BLOCK_D)
            sum_t = tl.load(t + statistic, mask=exists, other=0.0)
            sum_y = tl.load(x + statistic, mask=exists, other=0.0)
            raw = product(query_a, tl.trans(key), None, ACC, WIDEN)
            tangent = product(query, tl.trans(key_b), raw, ACC, WIDEN) * scale - sum_t[:, None]
            if e is not None:
                tangent += added
            of_c = product(slope, tl.trans(key_c), None, ACC, WIDEN) - sum_y[:, None]
            ds = p * of_c + tangent * ds
        total += ds
    split = tl.program_id(2).to(tl.int64) * H + head
    inside = exists[:, None] & (columns < N)[None, :]
    tl.store(g_bias + split * (M * N) + rows[:, None] * N + columns[None, :], total, mask=inside)


# ------------------------------------------------------------------------------------------------- launches


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

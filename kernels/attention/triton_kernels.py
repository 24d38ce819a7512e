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

Queries that do not exist get lse = inf, so P = 0. Keys that do not exist get a score of -inf where their P would enter
results that are stored: not in ``columns_kernel`` and ``bias_kernel``. No other mask is needed.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# Triton's types do not know compile-time branches, and take index tuples and reductions for other things.

import triton
import triton.language as tl

from .triton_blocks import (
    dot_rows,
    load_block,
    load_pairs,
    mean_block,
    of_head,
    product,
    scores,
    softmax_and_slope,
    store_block,
    unknown_zero,
    window_head_and_block,
)

UNSPECIALISED = ("n_regions", "windows")


@triton.jit
def forward_block(
    own, top, mass, total, k, k_n, v, v_n, rows, columns, scale, bias, regions, n_regions, window, head,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    ACC: tl.constexpr, WIDEN: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    """Row maximum, sum and product with the values, after one more block of keys; ``PAD``: some of them do not exist.

    Whole blocks without a mask, and one with it, save 2 of the loop's 9 elementwise operations."""
    key = load_block(k, columns, k_n, N, D, BLOCK_D, PAD)
    value = load_block(v, columns, v_n, N, D, BLOCK_D, PAD)
    raw = product(own, tl.trans(key), None, ACC, WIDEN)
    score = scores(raw, rows[:, None], columns[None, :], scale, bias, regions, n_regions, window, head, M, N, ACC, PAD)
    higher = tl.maximum(top, tl.max(score, 1))
    p = tl.exp2(score - higher[:, None])
    shrink = tl.exp2(top - higher)
    return higher, mass * shrink + tl.sum(p, 1), product(p, value, total * shrink[:, None], ACC, WIDEN)


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
    whole: tl.constexpr = N // BLOCK_N * BLOCK_N
    for start in range(0, whole, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        top, mass, total = forward_block(
            own, top, mass, total, k, k_n, v, v_n, rows, columns, scale, bias, regions, n_regions, window, head,
            M, N, D, BLOCK_D, ACC, WIDEN, False,
        )  # fmt: skip
    if whole != N:
        columns = whole + tl.arange(0, BLOCK_N)
        top, mass, total = forward_block(
            own, top, mass, total, k, k_n, v, v_n, rows, columns, scale, bias, regions, n_regions, window, head,
            M, N, D, BLOCK_D, ACC, WIDEN, True,
        )  # fmt: skip
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
    pad: tl.constexpr = N % BLOCK_N != 0
    for start in range(0, N, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        key = load_block(k, columns, k_n, N, D, BLOCK_D, pad)
        value = load_block(v, columns, v_n, N, D, BLOCK_D, pad)
        p, ds = softmax_and_slope(
            own, slope, key, value, base, of_row, rows, columns, scale, bias, regions, n_regions, window, head,
            M, N, ACC, WIDEN, pad,
        )  # fmt: skip
        if not SPLIT:
            from_ds = product(ds, key, from_ds, ACC, WIDEN)
        if a is not None:
            key_b = load_block(b, columns, b_n, N, D, BLOCK_D, pad)
            key_c = load_block(c, columns, c_n, N, D, BLOCK_D, pad)
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
        # computed again, and O loaded here and not above: kept in the loop they cost 8 and 16 registers, and it spills
        number, window, head, rows = window_head_and_block(M, BLOCK_M, H, unknown_zero())
        statistic = number.to(tl.int64) * M + rows
        exists = rows < M
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
    pad: tl.constexpr = N % BLOCK_N != 0
    for start in range(0, N, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        key = load_block(k, columns, k_n, N, D, BLOCK_D, pad)
        value = load_block(v, columns, v_n, N, D, BLOCK_D, pad)
        key_b = load_block(b, columns, b_n, N, D, BLOCK_D, pad)
        key_c = load_block(c, columns, c_n, N, D, BLOCK_D, pad)
        p, ds = softmax_and_slope(
            own, slope, key, value, base, of_row, rows, columns, scale, bias, regions, n_regions, window, head,
            M, N, ACC, WIDEN, pad,
        )  # fmt: skip
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
    pad: tl.constexpr = M % BLOCK_M != 0
    for start in range(0, M, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        exists = rows < M
        query = load_block(q, rows, q_n, M, D, BLOCK_D, pad)
        slope = load_block(do, rows, do_n, M, D, BLOCK_D, pad)
        base = tl.load(lse + statistics + rows, mask=exists, other=float("inf"))
        of_row = tl.load(delta + statistics + rows, mask=exists, other=0.0)
        raw = product(key, tl.trans(query), None, ACC, WIDEN)
        score = scores(
            raw, rows[None, :], columns[:, None], scale, bias, regions, n_regions, window, head, M, N, ACC, False
        )  # fmt: skip
        p = tl.exp2(score - base[None, :])
        ds = p * (product(value, tl.trans(slope), None, ACC, WIDEN) - of_row[None, :])
        if a is not None:
            query_a = load_block(a, rows, a_n, M, D, BLOCK_D, pad)
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
    _, window, head, columns = window_head_and_block(N, BLOCK_N, H, unknown_zero())  # as in ``rows_kernel``
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
        p, ds = softmax_and_slope(
            query, slope, key, value, base, of_row, rows, columns, scale, bias, regions, n_regions, window, head,
            M, N, ACC, WIDEN, False,
        )  # fmt: skip
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

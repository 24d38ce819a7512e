"""Attention and its derivatives in plain torch, chunk by chunk: no matrix of more than ``CHUNK_BYTES``.

The formulas are in ``attention``'s package docstring. Chunks are windows, or heads of one window, or rows of queries of
one head, whichever is the largest that fits: softmax and all three derivatives are complete within a row. Everything
between the rounded inputs and the rounded results is computed in ``accumulator``'s dtype.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .layout import MASKED, accumulator, empty_like_tokens

softmax_backward = torch._softmax_backward_data  # no public form
CHUNK_BYTES = {"cpu": 2**20, "cuda": 64 * 2**20}
"""Largest matrix of scores of one chunk. A CPU keeps it in its cache: 16 windows of 392 tokens and 3 heads, forward and
both derivatives, take 223, 225, 221, 245, 293 ms at 0.3, 1, 2, 4, 16 MiB; whole matrices 198 ms. A derivative has eight
such matrices: the peak of a reduced Swin's step is 45 MiB with 1 MiB, 54 with 2. A GPU (float32, float64 and large
heads) needs large launches."""


def chunks(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice, list[slice]]]:
    """(windows, heads, blocks of queries): together they cover (B, H, M) once."""
    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    limit, row = CHUNK_BYTES.get(q.device.type, CHUNK_BYTES["cpu"]), keys * accumulator(q).itemsize
    per_window = max(1, limit // (heads * queries * row))
    per_head = max(1, min(heads, limit // (queries * row)))
    per_block = max(1, min(queries, limit // row))
    blocks = [slice(i, min(i + per_block, queries)) for i in range(0, queries, per_block)]
    for window in range(0, batch, per_window):
        for head in range(0, heads, per_head):
            yield slice(window, min(window + per_window, batch)), slice(head, min(head + per_head, heads)), blocks


def probabilities(q: Tensor, k: Tensor, bias: Tensor | None, different: Tensor | None) -> Tensor:
    """softmax(q k^T + bias + mask) over the keys, for q (w, h, m, d) that already has the scale in it."""
    score = q @ k.transpose(-1, -2)
    if bias is not None:
        score += bias
    if different is not None:
        score.add_(different, alpha=MASKED)
    return torch.softmax(score, -1)


def different_regions(regions: Tensor | None, windows: slice, rows: slice) -> Tensor | None:
    """bool (w, 1, m, N): whether a query and a key of a window are of different regions."""
    if regions is None:
        return None
    own = regions[torch.arange(windows.start, windows.stop, device=regions.device) % len(regions)]
    return (own[:, rows, None] != own[:, None, :])[:, None]


def attention_torch(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, regions: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The CPU form of the forward: O, and nothing for the second result (the Triton form keeps row statistics).

    Its signature is the operator's."""
    out, acc = empty_like_tokens(q), accumulator(q)
    for w, h, blocks in chunks(q, k):
        key, value = k[w, h].to(acc), v[w, h].to(acc)
        for r in blocks:
            own_bias = None if bias is None else bias[h, r].to(acc)
            p = probabilities(q[w, h, r].to(acc) * scale, key, own_bias, different_regions(regions, w, r))
            out[w, h, r] = (p @ value).to(out.dtype)
    return out, q.new_empty(0, dtype=acc)


def _zeros_of(bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    assert bias is not None, "only a bias has a gradient"
    return torch.zeros_like(bias, dtype=dtype, memory_format=torch.contiguous_format)


def _in_dtype_of(bias: Tensor | None, g_bias: Tensor | None, q: Tensor) -> Tensor:
    return q.new_empty(0) if bias is None or g_bias is None else g_bias.to(bias.dtype)


def attention_backward_torch(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    regions: Tensor | None,
    out: Tensor | None,
    lse: Tensor | None,
    scale: float,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The CPU form of the backward: dQ, dK, dV, dB (empty unless ``need_bias``), and nothing. ``out``, ``lse``: unused.

    Its signature is the operator's."""
    acc = accumulator(q)
    g_q, g_k, g_v = empty_like_tokens(q), empty_like_tokens(k), empty_like_tokens(v)
    g_bias = _zeros_of(bias, acc) if need_bias else None
    for w, h, blocks in chunks(q, k):
        key, value = k[w, h].to(acc), v[w, h].to(acc)
        total_k, total_v = torch.zeros_like(key), torch.zeros_like(value)
        for r in blocks:
            query, slope = q[w, h, r].to(acc) * scale, do[w, h, r].to(acc)
            own_bias = None if bias is None else bias[h, r].to(acc)
            p = probabilities(query, key, own_bias, different_regions(regions, w, r))
            total_v += p.transpose(-1, -2) @ slope
            ds = softmax_backward(slope @ value.transpose(-1, -2), p, -1, p.dtype)
            g_q[w, h, r] = (ds @ key).mul_(scale).to(q.dtype)
            total_k += ds.transpose(-1, -2) @ query
            if g_bias is not None:
                g_bias[h, r] += ds.sum(0)
        g_k[w, h], g_v[w, h] = total_k.to(k.dtype), total_v.to(v.dtype)
    nothing = q.new_empty(0, dtype=acc)
    return g_q, g_k, g_v, _in_dtype_of(bias, g_bias, q), nothing


def attention_double_backward_torch(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    e: Tensor | None,
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    regions: Tensor | None,
    out: Tensor | None,
    lse: Tensor | None,
    delta: Tensor | None,
    scale: float,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The CPU form of the double backward: g_dO, g_Q, g_K, g_V, g_B (empty unless ``need_bias``).

    Its signature is the operator's. ``out``, ``lse``, ``delta``: unused."""
    acc = accumulator(q)
    g_do, g_q, g_k, g_v = empty_like_tokens(do), empty_like_tokens(q), empty_like_tokens(k), empty_like_tokens(v)
    g_bias = _zeros_of(bias, acc) if need_bias else None
    for w, h, blocks in chunks(q, k):
        key, value, key_b, key_c = (tensor[w, h].to(acc) for tensor in (k, v, b, c))
        total_k, total_v = torch.zeros_like(key), torch.zeros_like(value)
        for r in blocks:
            query, query_a = q[w, h, r].to(acc) * scale, a[w, h, r].to(acc) * scale
            slope = do[w, h, r].to(acc)
            own_bias = None if bias is None else bias[h, r].to(acc)
            p = probabilities(query, key, own_bias, different_regions(regions, w, r))
            tangent = query_a @ key.transpose(-1, -2)
            tangent += query @ key_b.transpose(-1, -2)
            if e is not None:
                tangent += e[h, r].to(acc)
            dp, of_c = slope @ value.transpose(-1, -2), slope @ key_c.transpose(-1, -2)
            ds, u, cotangent = second_order(p, dp, tangent, of_c)
            g_do[w, h, r] = (u @ value).add_(p @ key_c).to(do.dtype)
            g_q[w, h, r] = (cotangent @ key).add_(ds @ key_b).mul_(scale).to(q.dtype)
            total_v += u.transpose(-1, -2) @ slope
            total_k += cotangent.transpose(-1, -2) @ query
            total_k += ds.transpose(-1, -2) @ query_a
            if g_bias is not None:
                g_bias[h, r] += cotangent.sum(0)
        g_k[w, h], g_v[w, h] = total_k.to(k.dtype), total_v.to(v.dtype)
    return g_do, g_q, g_k, g_v, _in_dtype_of(bias, g_bias, q)


def second_order(p: Tensor, dp: Tensor, tangent: Tensor, of_c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dS, U and W (the last two the cotangents of dP and of the scores) from P, dP, T and dO c^T.

    ``tangent`` and ``of_c`` are overwritten: every pass over a chunk counts. With dS summing to zero in a row,
    W = Y - P rowsum(Y) for Y = P*(dO c^T) + (T - t)*dS."""
    ds = softmax_backward(dp, p, -1, p.dtype)
    tangent -= (p * tangent).sum(-1, keepdim=True)
    y = of_c.mul_(p).addcmul_(tangent, ds)
    return ds, tangent.mul_(p), y.addcmul_(p, y.sum(-1, keepdim=True), value=-1)

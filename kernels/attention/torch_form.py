"""Attention and its derivatives in plain torch, chunk by chunk: no matrix of more than ``CHUNK_BYTES``.

The formulas are in ``attention``'s package docstring. Chunks are windows, or heads of one window, or rows of queries of
one head, whichever is the largest that fits: softmax and all three derivatives are complete within a row. Everything
between the rounded inputs and the rounded results is computed in ``accumulator``'s dtype.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .layout import MASKED, accumulator, empty_like_tokens

softmax_backward = torch.ops.aten._softmax_backward_data.out  # no public form
CHUNK_BYTES = {"cpu": 2**20, "cuda": 64 * 2**20}
"""Largest matrix of scores of one chunk; a forward has one at a time, a backward two, a double backward four."""
ALL = slice(None)


class Chunk:
    """Windows and heads that are computed together, as one batch of G = windows * heads matrices.

    Attributes:
        windows, heads: slices of (B, H, M).
        blocks: slices of the queries, computed one after another.
        scratch: matrices of scores by name, shared by all chunks of one call.
    """

    def __init__(self, windows: slice, heads: slice, blocks: list[slice], scratch: dict[str, Tensor]):
        self.windows, self.heads, self.blocks, self.scratch = windows, heads, blocks, scratch

    def take(self, tensor: Tensor, rows: slice = ALL, scale: float = 1.0) -> Tensor:
        """This chunk's rows of (B, H, L, d), times ``scale``: (G, rows, d), contiguous, as the products want it."""
        part = tensor[self.windows, self.heads, rows]
        taken = part.new_empty(part.shape, dtype=accumulator(part)).copy_(part)
        return (taken if scale == 1 else taken.mul_(scale)).flatten(0, 1)

    def give(self, tensor: Tensor, rows: slice, result: Tensor) -> None:
        """Write ``result`` (G, rows, d) to its place in (B, H, L, d)."""
        place = tensor[self.windows, self.heads, rows]
        place.copy_(result.view(place.shape))

    def matrix(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """An uninitialised (G, m, N) for left (G, m, .) and right (G, N, .), in memory that the chunks share: new
        memory costs page faults."""
        shape = (*left.shape[:2], right.shape[1])
        if name not in self.scratch:  # the first chunk is the largest
            self.scratch[name] = left.new_empty(math.prod(shape))
        return self.scratch[name][: math.prod(shape)].view(shape)

    def product(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """left right^T in the memory called ``name``."""
        return torch.bmm(left, right.mT, out=self.matrix(name, left, right))

    def by_window(self, matrix: Tensor) -> Tensor:
        """(G, m, N) as (windows, heads, m, N)."""
        return matrix.unflatten(0, (-1, self.heads.stop - self.heads.start))

    def of_bias(self, bias: Tensor, rows: slice) -> Tensor:
        """This chunk's part of (H, M, N)."""
        return bias[self.heads, rows]

    def add_windows(self, total: Tensor, rows: slice, matrix: Tensor) -> None:
        """Add the sum over windows of (G, m, N) to its place in (H, M, N)."""
        place = total[self.heads, rows].flatten(1).unsqueeze(1)
        parts = self.by_window(matrix).flatten(2).transpose(0, 1)
        # a product with ones takes a third of the time of a sum and an addition
        place.baddbmm_(parts.new_ones(len(parts), 1, parts.shape[1]), parts)

    def probabilities(
        self, query: Tensor, key: Tensor, bias: Tensor | None, regions: Tensor | None, rows: slice
    ) -> Tensor:
        """softmax(q k^T + bias + mask) over the keys, for a query (G, m, d) that already has the scale in it."""
        score = self.matrix("p", query, key)
        if bias is None:
            torch.bmm(query, key.mT, out=score)
        else:
            self.by_window(score).copy_(self.of_bias(bias, rows))
            score.baddbmm_(query, key.mT)
        if regions is not None:
            own = regions[torch.arange(self.windows.start, self.windows.stop, device=regions.device) % len(regions)]
            different = (own[:, rows, None] != own[:, None, :])[:, None]
            self.by_window(score).add_(different, alpha=MASKED)
        return torch.softmax(score, -1, out=score)


def chunks(q: Tensor, k: Tensor) -> Iterator[Chunk]:
    """Together they cover (B, H, M) once."""
    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    limit, row = CHUNK_BYTES.get(q.device.type, CHUNK_BYTES["cpu"]), keys * accumulator(q).itemsize
    per_window = max(1, limit // (heads * queries * row))
    per_head = max(1, min(heads, limit // (queries * row)))
    per_block = max(1, min(queries, limit // row))
    blocks, scratch = [slice(i, min(i + per_block, queries)) for i in range(0, queries, per_block)], {}
    for window in range(0, batch, per_window):
        windows = slice(window, min(window + per_window, batch))
        for head in range(0, heads, per_head):
            yield Chunk(windows, slice(head, min(head + per_head, heads)), blocks, scratch)


def attention_torch(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, regions: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The CPU form of the forward: O, and nothing for the second result (the Triton form keeps row statistics).

    Its signature is the operator's."""
    out = empty_like_tokens(q)
    for chunk in chunks(q, k):
        key, value = chunk.take(k), chunk.take(v)
        for rows in chunk.blocks:
            p = chunk.probabilities(chunk.take(q, rows, scale), key, bias, regions, rows)
            chunk.give(out, rows, p @ value)
    return out, q.new_empty(0, dtype=accumulator(q))


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
    for chunk in chunks(q, k):
        key, value = chunk.take(k), chunk.take(v)
        total_k, total_v = torch.zeros_like(key), torch.zeros_like(value)
        for rows in chunk.blocks:
            query, slope = chunk.take(q, rows, scale), chunk.take(do, rows)
            p = chunk.probabilities(query, key, bias, regions, rows)
            ds = chunk.product("ds", slope, value)  # dP
            softmax_backward(ds, p, -1, acc, grad_input=ds)
            total_v.baddbmm_(p.mT, slope)
            total_k.baddbmm_(ds.mT, query)
            chunk.give(g_q, rows, (ds @ key).mul_(scale))
            if g_bias is not None:
                chunk.add_windows(g_bias, rows, ds)
        chunk.give(g_k, ALL, total_k)
        chunk.give(g_v, ALL, total_v)
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

    With dS summing to zero in a row, W = Y - P rowsum(Y) for Y = P*(dO c^T) + (T - t)*dS. Its signature is the
    operator's. ``out``, ``lse``, ``delta``: unused."""
    acc = accumulator(q)
    g_do, g_q, g_k, g_v = empty_like_tokens(do), empty_like_tokens(q), empty_like_tokens(k), empty_like_tokens(v)
    g_bias = _zeros_of(bias, acc) if need_bias else None
    for chunk in chunks(q, k):
        key, value, key_b, key_c = (chunk.take(tensor) for tensor in (k, v, b, c))
        both_keys = torch.cat([key, key_b], -1)  # s (a K^T + Q b^T) is one product
        total_k, total_v = torch.zeros_like(key), torch.zeros_like(value)
        for rows in chunk.blocks:
            query, query_a = chunk.take(q, rows, scale), chunk.take(a, rows, scale)
            slope = chunk.take(do, rows)
            p = chunk.probabilities(query, key, bias, regions, rows)
            tangent = chunk.product("tangent", torch.cat([query_a, query], -1), both_keys)
            if e is not None:
                chunk.by_window(tangent).add_(chunk.of_bias(e, rows))
            weighted = torch.mul(p, tangent, out=chunk.matrix("ds", query, key))
            tangent -= weighted.sum(-1, keepdim=True)  # T - t
            ds = chunk.product("ds", slope, value)  # dP
            softmax_backward(ds, p, -1, acc, grad_input=ds)
            y = chunk.product("y", slope, key_c).mul_(p).addcmul_(tangent, ds)
            w = y.addcmul_(p, y.sum(-1, keepdim=True), value=-1)
            u = tangent.mul_(p)
            chunk.give(g_do, rows, (u @ value).baddbmm_(p, key_c))
            chunk.give(g_q, rows, (w @ key).baddbmm_(ds, key_b).mul_(scale))
            total_v.baddbmm_(u.mT, slope)
            total_k.baddbmm_(w.mT, query).baddbmm_(ds.mT, query_a)
            if g_bias is not None:
                chunk.add_windows(g_bias, rows, w)
        chunk.give(g_k, ALL, total_k)
        chunk.give(g_v, ALL, total_v)
    return g_do, g_q, g_k, g_v, _in_dtype_of(bias, g_bias, q)

"""What the attention kernels share: blocks of tokens and pairs, a tile's scores, products of a stated precision."""

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# Triton's types do not know compile-time branches, and take index tuples and reductions for other things.

import triton
import triton.language as tl

from .layout import MASKED

LOG2E = tl.constexpr(1.4426950408889634)
MASK = tl.constexpr(MASKED)


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
def load_block(
    pointer, tokens, stride,
    COUNT: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, PAD: tl.constexpr = True,
):  # fmt: skip
    """A block of tokens, zero where there is none. Without ``PAD`` all are known to exist, and no mask is computed."""
    offsets, exists = block_of(tokens, stride, COUNT, D, BLOCK_D)
    if PAD or BLOCK_D != D:
        return tl.load(pointer + offsets, mask=exists, other=0.0)
    else:
        return tl.load(pointer + offsets)


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
    M: tl.constexpr, N: tl.constexpr, ACC: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    """Scores in base 2 from the products ``raw`` of queries and keys; ``row`` and ``column`` broadcast to its shape.

    ``PAD``: keys that do not exist get -inf. Without it, all exist, or what is computed of the others is not stored."""
    score = raw * (scale * LOG2E)
    if bias is not None:
        score += load_pairs(bias, head, row, column, M, N, ACC) * LOG2E
    if regions is not None:
        own = regions + (window % n_regions) * N
        of_row = tl.load(own + row, mask=row < N, other=0)
        of_column = tl.load(own + column, mask=column < N, other=0)
        score += tl.where(of_row != of_column, MASK * LOG2E, 0.0)
    if PAD:
        score = tl.where(column < N, score, float("-inf"))
    return score


@triton.jit
def softmax_and_slope(
    query, slope, key, value, base, of_row, rows, columns, scale, bias, regions, n_regions, window, head,
    M: tl.constexpr, N: tl.constexpr, ACC: tl.constexpr, WIDEN: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    """P and dS = P*(dO V^T - delta) of a tile (rows, columns); ``PAD`` as for ``scores``.

    ``slope`` is a block of dO, ``base`` the rows' log2 of the softmax's denominator, ``of_row`` their delta."""
    raw = product(query, tl.trans(key), None, ACC, WIDEN)
    score = scores(raw, rows[:, None], columns[None, :], scale, bias, regions, n_regions, window, head, M, N, ACC, PAD)
    p = tl.exp2(score - base[:, None])
    return p, p * (product(slope, tl.trans(value), None, ACC, WIDEN) - of_row[:, None])


@triton.jit
def unknown_zero():
    """Zero, where the grid has one axis; the compiler cannot know. What is computed with it after a loop is computed
    there: without it, the same values from before the loop are kept, in registers that the loop then lacks."""
    return tl.num_programs(1) - 1


@triton.jit
def window_head_and_block(COUNT: tl.constexpr, BLOCK: tl.constexpr, H: tl.constexpr, ZERO=0):
    """(window * H + head, window, head, the block's tokens); one grid axis, because the others end at 65535 programs.

    Blocks of one window and head are neighbours, so that what they share stays in the L2 cache. ``ZERO``: see
    ``unknown_zero``."""
    blocks: tl.constexpr = (COUNT + BLOCK - 1) // BLOCK
    program = tl.program_id(0) + ZERO
    number = program // blocks
    return number, number // H, number % H, program % blocks * BLOCK + tl.arange(0, BLOCK)

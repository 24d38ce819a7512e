"""What each attention kernel must compute and move, and the time that predicts for a GPU: a model, not a measurement.

Counted per launch: products of M x N x d, in whole tiles; bytes of device memory if every tensor is read or written
once; bytes that the programs fetch from the L2 cache, where those that share keys or queries find them; elementwise
operations and exponentials. The rates of ``H100`` are assumptions, stated with it.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import triton

from ..launch_configs import ATTENTION_PROGRAMS, ATTENTION_TILES, attention_tile_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """What a GPU does in a second."""

    tensor: float
    """16-bit FLOP in tensor cores, dense, sustained by large matrix products."""
    memory: float
    """Bytes of device memory."""
    cache: float
    """Bytes from the L2 cache."""
    lanes: float
    """Elementwise float32 operations."""
    exponentials: float


H100 = Rates(tensor=800e12, memory=3e12, cache=5.5e12, lanes=20e12, exponentials=3.6e12)
"""H100 SXM. ``memory`` is 90 % of the data sheet; ``cache`` is a guess; ``lanes`` are 132 multiprocessors of 128 lanes
at 1.7 GHz less a third for addresses; ``exponentials`` 16 a clock and multiprocessor."""


class Work(NamedTuple):
    """What one element of M x N costs in one kernel, and which tensors the kernel moves."""

    products: int
    """Of M x N x d."""
    operations: int
    """Elementwise, without those of a bias."""
    query_side: int
    """Tensors of M x d that are read: of Q, dO, O, a."""
    key_side: int
    """Tensors of N x d that are read: of K, V, b, c."""
    written: int
    """Tensors of M x d or N x d."""
    statistics: int
    """Numbers per query, read and written."""


WORK = {
    "forward": Work(2, 8, 1, 2, 1, 1),
    "rows": Work(3, 11, 3, 2, 1, 2),
    "columns": Work(4, 9, 2, 2, 2, 2),
    "bias": Work(2, 8, 2, 2, 0, 2),
    "rows2": Work(11, 19, 4, 4, 2, 4),
    "columns2": Work(8, 15, 3, 4, 2, 4),
    "bias2": Work(5, 14, 3, 4, 0, 4),
    # where g_Q takes a sweep of its own
    "rows2 split": Work(7, 15, 4, 4, 1, 4),
    "queries2": Work(7, 17, 3, 4, 1, 4),
}
BIAS_OPERATIONS = 7
"""Per element: the addition, the comparison of regions, addresses and masks of the loads."""
PASSES = {
    "forward": ("forward",),
    "backward": ("rows", "columns", "bias"),
    "double backward": ("rows2", "queries2", "columns2", "bias2"),
}


class LaunchCost(NamedTuple):
    """One launch."""

    name: str
    flop: float
    """Of the products, without padding."""
    padded_flop: float
    """Of the products, in whole tiles."""
    memory_bytes: float
    cache_bytes: float
    seconds_at_best: float
    """Everything overlaps: the slowest of tensor cores, device memory, cache and elementwise work."""
    seconds_at_worst: float
    """Nothing overlaps: their sum."""


def launch_costs(
    kind: str,
    shape: tuple[int, int, int, int, int],
    *,
    biased: bool = False,
    need_bias: bool = True,
    bias_bytes: int = 4,
    rates: Rates = H100,
) -> Iterator[LaunchCost]:
    """The launches of one pass for 16-bit q, k, v.

    Args:
        kind: "forward", "backward" or "double backward".
        shape: (B, H, M, N, d).
        biased: with a bias, and with regions, which cost next to nothing.
        need_bias: the bias's gradient is wanted; only with ``biased``.
        bias_bytes: of one element of the bias.
        rates: of the GPU.
    """
    size = shape[4]
    split = max(16, triton.next_power_of_2(size)) in ATTENTION_TILES["queries2"]
    for name in PASSES[kind]:
        if (name.startswith("bias") and not (biased and need_bias)) or (name == "queries2" and not split):
            continue
        yield launch_cost(name, "rows2 split" if name == "rows2" and split else name, shape, biased, bias_bytes, rates)


def launch_cost(name: str, work_name: str, shape: tuple, biased: bool, bias_bytes: int, rates: Rates) -> LaunchCost:
    """One launch of the kernel ``name``, which does ``WORK[work_name]``."""
    (batch, heads, queries, keys, size), work = shape, WORK[work_name]
    block_d = max(16, triton.next_power_of_2(size))
    tile = attention_tile_for(name, block_d, biased)
    down, across, pairs = triton.cdiv(queries, tile.queries), triton.cdiv(keys, tile.keys), batch * heads
    elements = pairs * down * tile.queries * across * tile.keys
    query_bytes, key_bytes = pairs * queries * size * 2, pairs * keys * size * 2
    bias_matrix = heads * queries * keys * bias_bytes if biased else 0

    memory = work.query_side * query_bytes + work.key_side * key_bytes + work.statistics * pairs * queries * 4
    memory += work.written * (key_bytes if name.startswith("columns") else query_bytes) + bias_matrix
    bias_reads = batch * bias_matrix
    if name.startswith("columns"):
        cache = work.key_side * key_bytes + across * work.query_side * query_bytes
    elif name.startswith("bias"):
        cache = down * work.key_side * key_bytes + across * work.query_side * query_bytes
        splits = min(batch, triton.cdiv(ATTENTION_PROGRAMS, heads * down * across))
        memory += 2 * splits * heads * queries * keys * 4  # partial sums, written and added
    else:
        cache = work.query_side * query_bytes + down * work.key_side * key_bytes
    cache += bias_reads

    padded = 2 * work.products * elements * block_d
    # a product over few dimensions fills the tensor cores less: half at d = 32, 0.6 from d = 64 on
    seconds = [
        padded / (rates.tensor * (0.5 if block_d <= 32 else 0.6)),
        memory / rates.memory,
        cache / rates.cache,
        elements * (work.operations + BIAS_OPERATIONS * biased) / rates.lanes + elements / rates.exponentials,
    ]
    flop = 2 * work.products * pairs * queries * keys * size
    return LaunchCost(name, flop, padded, memory, cache, max(seconds), sum(seconds))

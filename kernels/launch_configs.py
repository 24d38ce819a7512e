"""Launch configurations of the Triton kernels: a table chosen by size, nothing is searched at run time.

The reasoning behind the sizes, for a GPU of the H100/H200 class (132 SMs); ``bench/results/kernels_sm90.json`` has the
registers of each, ``unstill bench kernels`` measures them:

* Reading planar clips out of packed pixels takes one-byte loads three bytes apart. With ``vec`` neighbouring pixels per
  thread a warp's load spans 96 * vec bytes, so the wider the store, the more L1 wavefronts per pixel: about 0.09 for
  vec = 1, 0.19 for 2, 0.56 for 8, and the last takes longer (some 120 us for 32 clips of 32 x 224 x 224) than the
  DRAM traffic itself. Two 16-bit pixels, one 4-byte store per thread, keep the stores full 128-byte lines.
* Frames in one tile share the crop's address arithmetic, and all their loads are in flight before the first store.
* Every kernel uses the same number of warps, and rows the same tile in all kernels, because both fix the order of a
  sum, and ``step_boundary`` must equal the separate kernels to the bit. For the same reason multiply-add fusion is off
  (``FP_FUSION``); the kernels are bound by memory, not by arithmetic.
* Rows are processed in tiles of at most 1024 columns (4 per thread), so that they cost the clip tiles that share a
  launch with them no occupancy.
* Attention has tiles, warps and stages of its own, and multiply-add fusion: nothing must equal it to the bit. A tile
  with fewer than 64 rows on the left of a product would fall back from wgmma to the slower mma.sync, so tiles are
  64 x 32 where queries are on the left and 32 x 64 (transposed) where keys are. Larger tiles spill.
"""

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor

NUM_WARPS = 8
FP_FUSION = False
LAUNCH = dict(num_warps=NUM_WARPS, enable_fp_fusion=FP_FUSION)

MAX_BLOCK_C = 1024
MIN_BLOCK_C = 32 * NUM_WARPS


class ClipTile(NamedTuple):
    """What one program of the clip kernel writes."""

    block: int
    """Neighbouring elements of one frame; pixels if planar, pixels * 3 if channels-last. A power of two."""
    frames: int
    """Frames. A power of two."""
    vec: int
    """Elements that one thread stores at once. A power of two."""


# (channels_last, bytes per element) -> [(least number of elements in one frame of the crop, tile)], largest first
CLIP_TILES: dict[tuple[bool, int], list[tuple[int, ClipTile]]] = {
    (False, 2): [(64 * 64, ClipTile(512, 4, 2)), (0, ClipTile(256, 4, 2))],
    (False, 4): [(64 * 64, ClipTile(512, 4, 1)), (0, ClipTile(256, 4, 1))],
    (True, 2): [(64 * 64 * 3, ClipTile(1024, 4, 4)), (0, ClipTile(256, 4, 4))],
    (True, 4): [(64 * 64 * 3, ClipTile(1024, 4, 2)), (0, ClipTile(256, 4, 2))],
}


def clip_tile_for(elements: int, length: int, itemsize: int, channels_last: bool) -> ClipTile:
    """The tile for clips of ``length`` frames of ``elements`` elements (per plane if planar) of ``itemsize`` bytes."""
    tile = next(tile for least, tile in CLIP_TILES[channels_last, itemsize] if elements >= least)
    frames, vec = tile.frames, tile.vec
    while frames // 2 >= length:
        frames //= 2
    while elements % vec:  # every plane must start at a multiple of the store
        vec //= 2
    return ClipTile(tile.block, frames, vec)


def row_block_for(classes: int) -> int:
    """Columns of one tile of a row of logits."""
    block = MIN_BLOCK_C
    while block < min(classes, MAX_BLOCK_C):
        block *= 2
    return block


class AttentionTile(NamedTuple):
    """What one program of an attention kernel multiplies at a time. All are powers of two."""

    queries: int
    keys: int
    warps: int
    stages: int


# kernel ("2": of the double backward) -> {head dimension, rounded up to a power of two: tile}
ATTENTION_TILES: dict[str, dict[int, AttentionTile]] = {
    "forward": {32: AttentionTile(64, 64, 4, 2), 64: AttentionTile(64, 64, 4, 2), 128: AttentionTile(64, 64, 4, 2)},
    "rows": {32: AttentionTile(64, 32, 4, 2), 64: AttentionTile(64, 64, 4, 2), 128: AttentionTile(64, 32, 4, 2)},
    "columns": {32: AttentionTile(32, 64, 4, 2), 64: AttentionTile(32, 64, 4, 2), 128: AttentionTile(32, 64, 4, 2)},
    "bias": {32: AttentionTile(64, 32, 4, 2), 64: AttentionTile(64, 32, 4, 2), 128: AttentionTile(64, 32, 4, 2)},
    # with two stages Triton 3.6 spills 4 bytes at d = 64; a tile of 16 keys would fill the tensor cores less
    "rows2": {32: AttentionTile(64, 32, 4, 2), 64: AttentionTile(64, 32, 4, 3), 128: AttentionTile(64, 16, 4, 2)},
    # one sweep has no registers for four accumulators of 128 dimensions: g_Q takes a sweep of its own
    "queries2": {128: AttentionTile(64, 16, 4, 2)},
    "columns2": {32: AttentionTile(32, 64, 4, 2), 64: AttentionTile(32, 64, 4, 2), 128: AttentionTile(16, 64, 4, 1)},
    "bias2": {32: AttentionTile(64, 32, 4, 2), 64: AttentionTile(64, 32, 4, 2), 128: AttentionTile(64, 16, 4, 1)},
}
# where a bias needs registers that the tile above does not leave
BIASED_TILES: dict[tuple[str, int], AttentionTile] = {("rows2", 64): AttentionTile(64, 16, 4, 2)}

ATTENTION_PROGRAMS = 4 * 132
"""The bias kernel splits the windows until it has about this many programs: four on each multiprocessor of an H100."""


def attention_tile_for(kernel: str, block_d: int, biased: bool) -> AttentionTile:
    """The tile of a kernel for heads of ``block_d`` dimensions, a power of two."""
    tile = ATTENTION_TILES[kernel][max(32, block_d)]
    return BIASED_TILES.get((kernel, block_d), tile) if biased else tile


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()

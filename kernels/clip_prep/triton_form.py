"""Clip preparation in Triton, one program a tile of one clip's pixels and frames."""

# pyright: reportArgumentType=false
# Triton types a launch as a call of the kernel, whose compile-time arguments (tl.constexpr) are plain numbers there.

import torch
import triton
import triton.language as tl

from ..launch_configs import LAUNCH, ClipTile, clip_tile_for, on_device_of
from .torch_form import allocate_clips, normalisation, split_clips


@triton.jit
def normalise(pixel, scale, bias, dtype: tl.constexpr):
    """One rounding, at the end: bf16 is never computed with."""
    return (pixel.to(tl.float32) * scale + bias).to(dtype)


@triton.jit
def load_pixels(
    source, channel, mask, scale0, scale1, scale2, bias0, bias1, bias2, dtype: tl.constexpr, CHANNELS_LAST: tl.constexpr
):
    """The normalised red, green and blue of the pixels at ``source``; thrice the element there if channels-last."""
    if CHANNELS_LAST:
        scale = tl.where(channel == 0, scale0, tl.where(channel == 1, scale1, scale2))
        bias = tl.where(channel == 0, bias0, tl.where(channel == 1, bias1, bias2))
        value = normalise(tl.load(source, mask=mask, other=0), scale, bias, dtype)
        return value, value, value
    else:
        # all loads before any store: the compiler may not move a load across a store
        red = tl.load(source, mask=mask, other=0)
        green = tl.load(source + 1, mask=mask, other=0)
        blue = tl.load(source + 2, mask=mask, other=0)
        return (
            normalise(red, scale0, bias0, dtype),
            normalise(green, scale1, bias1, dtype),
            normalise(blue, scale2, bias2, dtype),
        )


@triton.jit
def store_pixels(target, red, green, blue, mask, PLANE: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    tl.store(target, red, mask=mask)
    if not CHANNELS_LAST:
        tl.store(target + PLANE, green, mask=mask)
        tl.store(target + 2 * PLANE, blue, mask=mask)


@triton.jit
def frame_offset(
    element, mirrored, first_row, first_column, frames_y, WIDTH: tl.constexpr, CHANNELS_LAST: tl.constexpr
):
    """(bytes from the start of a source frame, channel) of elements of the crop."""
    pixel = element
    channel = element
    if CHANNELS_LAST:
        pixel = element // 3
        channel = element - pixel * 3
    y = pixel // WIDTH
    x = pixel - y * WIDTH
    x = tl.where(mirrored, WIDTH - 1 - x, x)
    offset = (first_row + y) * frames_y + (first_column + x) * 3
    if CHANNELS_LAST:
        offset += channel
    return offset, channel


@triton.jit
def clip_tile(
    program, frames, frames_b, frames_t, frames_y, motion, motion_b, still, still_b, top, left, flip, t_idx,
    last_top, last_left, scale0, scale1, scale2, bias0, bias1, bias2,
    T: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, STATIC_FRAMES: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr, BLOCK_T: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """Write ``BLOCK`` elements of ``BLOCK_T`` frames of one clip, and the same elements of its static clip.

    Suffixes are strides: _b clip, _t frame, _y row. HEIGHT and WIDTH are the crop's. Clips are the slowest index of a
    program, then groups of frames, then tiles of a frame. The static clip has 0, 1 or T frames.
    """
    dtype: tl.constexpr = motion.dtype.element_ty
    # elements of one frame that are stored side by side, and the distance between channels
    ELEMENTS: tl.constexpr = HEIGHT * WIDTH * 3 if CHANNELS_LAST else HEIGHT * WIDTH
    PLANE: tl.constexpr = T * HEIGHT * WIDTH
    TILES: tl.constexpr = (ELEMENTS + BLOCK - 1) // BLOCK
    GROUPS: tl.constexpr = (T + BLOCK_T - 1) // BLOCK_T
    first = program % TILES * BLOCK
    t0 = (program // TILES) % GROUPS * BLOCK_T
    clip = program // (TILES * GROUPS)
    clip64 = clip.to(tl.int64)  # before it is multiplied by a stride: a batch exceeds 2**31 bytes

    first_row = 0
    first_column = 0
    mirrored = False
    if top is not None:
        first_row = tl.minimum(tl.maximum(tl.load(top + clip), 0), last_top).to(tl.int32)
    if left is not None:
        first_column = tl.minimum(tl.maximum(tl.load(left + clip), 0), last_left).to(tl.int32)
    if flip is not None:
        mirrored = tl.load(flip + clip) != 0

    # Frames and elements share one dimension: of two, Triton would lay the lanes of a warp along the frames for these
    # loads, because in neither dimension are the bytes neighbours, and convert through shared memory for the stores.
    lane = tl.arange(0, BLOCK * BLOCK_T)
    t = t0 + lane // BLOCK
    t64 = t.to(tl.int64)
    element = first + lane % BLOCK
    mask = (element < ELEMENTS) & (t < T)
    offset, channel = frame_offset(element, mirrored, first_row, first_column, frames_y, WIDTH, CHANNELS_LAST)
    source = frames + clip64 * frames_b
    red, green, blue = load_pixels(
        source + t64 * frames_t + offset, channel, mask,
        scale0, scale1, scale2, bias0, bias1, bias2, dtype, CHANNELS_LAST,
    )  # fmt: skip
    # the hint decides how wide the stores of a thread are: nothing is known of the stride's divisibility
    own = motion + tl.multiple_of(clip64 * motion_b, VEC)
    store_pixels(own + t64 * ELEMENTS + element, red, green, blue, mask, PLANE, CHANNELS_LAST)

    if STATIC_FRAMES > 0:
        chosen = tl.zeros((), tl.int64)
        if t_idx is not None:
            chosen = tl.minimum(tl.maximum(tl.load(t_idx + clip), 0), T - 1).to(tl.int64)
        own = still + tl.multiple_of(clip64 * still_b, VEC)
        element = first + tl.arange(0, BLOCK)
        mask = element < ELEMENTS
        offset, channel = frame_offset(element, mirrored, first_row, first_column, frames_y, WIDTH, CHANNELS_LAST)
        if STATIC_FRAMES > 1 or (chosen >= t0) & (chosen < t0 + BLOCK_T):  # one frame: the group that has just read it
            still_red, still_green, still_blue = load_pixels(
                source + chosen * frames_t + offset, channel, mask,
                scale0, scale1, scale2, bias0, bias1, bias2, dtype, CHANNELS_LAST,
            )  # fmt: skip
            if STATIC_FRAMES == 1:
                at = own + element
                store_pixels(at, still_red, still_green, still_blue, mask, HEIGHT * WIDTH, CHANNELS_LAST)
            else:
                for k in tl.static_range(BLOCK_T):  # type: ignore[reportGeneralTypeIssues]  (Triton unrolls it)
                    if t0 + k < T:
                        target = own + (t0 + k).to(tl.int64) * ELEMENTS + element
                        store_pixels(target, still_red, still_green, still_blue, mask, PLANE, CHANNELS_LAST)


UNSPECIALISED = ("frames_b", "frames_t", "frames_y", "motion_b", "still_b", "last_top", "last_left")


@triton.jit(do_not_specialize=UNSPECIALISED)
def clip_prep_kernel(
    frames, frames_b, frames_t, frames_y, motion, motion_b, still, still_b, top, left, flip, t_idx,
    last_top, last_left, scale0, scale1, scale2, bias0, bias1, bias2,
    T: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, STATIC_FRAMES: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr, BLOCK_T: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    clip_tile(
        tl.program_id(0), frames, frames_b, frames_t, frames_y, motion, motion_b, still, still_b,
        top, left, flip, t_idx, last_top, last_left, scale0, scale1, scale2, bias0, bias1, bias2,
        T, HEIGHT, WIDTH, STATIC_FRAMES, CHANNELS_LAST, BLOCK, BLOCK_T, VEC,
    )  # fmt: skip


def clip_launch(frames, top, left, flip, t_idx, size, mean, std, motion, still, tile=None):
    """(programs, run-time arguments, constexpr arguments) that fill ``motion`` and ``still`` (None: no static clip).

    Both must have the strides of a clip made by ``allocate_clips``, apart from the one between clips.
    """
    batch, length, height, width, _ = frames.shape
    h, w = size
    channels_last = motion.stride(1) == 1
    elements = h * w * 3 if channels_last else h * w
    tile = tile or clip_tile_for(elements, length, motion.element_size(), channels_last)
    scale, bias = normalisation(mean, std)
    index = [None if i is None else i.contiguous() for i in (top, left, flip, t_idx)]
    if index[2] is not None and index[2].dtype == torch.bool:
        index[2] = index[2].view(torch.uint8)
    stills = motion if still is None else still
    arguments = (
        *(frames, *frames.stride()[:3], motion, motion.stride(0), stills, stills.stride(0), *index),
        *(height - h, width - w, *scale, *bias),
    )
    meta = dict(T=length, HEIGHT=h, WIDTH=w, STATIC_FRAMES=0 if still is None else still.shape[2])
    meta |= dict(CHANNELS_LAST=channels_last, BLOCK=tile.block, BLOCK_T=tile.frames, VEC=tile.vec)
    programs = triton.cdiv(elements, tile.block) * triton.cdiv(length, tile.frames) * batch
    return programs, arguments, meta


def clip_prep_triton(
    frames, top, left, flip, t_idx, size, mean, std, dtype, channels_last, static, joint, tile: ClipTile | None = None
):
    """The CUDA form; on CPU tensors only under Triton's interpreter."""
    buffer, still = allocate_clips(frames, size, dtype, channels_last, static, joint)
    motion, stills = split_clips(buffer, still, frames.shape[0], static, joint)
    programs, arguments, meta = clip_launch(frames, top, left, flip, t_idx, size, mean, std, motion, stills, tile)
    with on_device_of(frames):
        clip_prep_kernel[(programs,)](*arguments, **meta, **LAUNCH)
    return buffer, still

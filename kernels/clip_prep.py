"""Clip preparation: uint8 frames -> normalised motion clip and static clip, in one read of the frames.

Crop offset, horizontal flip, normalisation, cast and memory layout are fused; the static clip is one frame of the
motion clip, bit for bit. Eager torch needs eleven kernels and two float32 copies of the batch for the same result.
"""

# pyright: reportArgumentType=false
# Triton types a launch as a call of the kernel, whose compile-time arguments (tl.constexpr) are plain numbers there.

from collections.abc import Sequence
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch_configs import LAUNCH, ClipTile, clip_tile_for, on_device_of

Layout = Literal["ncdhw", "channels_last_3d"]
Static = Literal["none", "frame", "full"]

LAYOUTS = ("ncdhw", "channels_last_3d")
STATICS = ("none", "frame", "full")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def clip_prep(
    frames: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int] | None = None,
    top: Tensor | None = None,
    left: Tensor | None = None,
    flip: Tensor | None = None,
    t_idx: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    layout: Layout = "ncdhw",
    static: Static = "none",
    joint: bool = False,
    validate: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Crop, flip, normalise and lay out a batch of clips; make their static clips on the way.

    Args:
        frames: uint8 (B, T, H, W, 3) with packed pixels (strides ..., 3, 1).
        mean, std: three numbers each, per channel, in units of the full range (0..1): the result is
            ``(frames / 255 - mean) / std``, computed in float32 (float64 for ``dtype=torch.float64``) and rounded once.
        size: (h, w) of the crop; the whole frame by default.
        top, left: integer (B,), first row and column of each crop; 0 by default. Values outside the frame are clamped
            into it.
        flip: bool or integer (B,), non-zero mirrors the clip left-right after the crop; not flipped by default.
        t_idx: integer (B,), the frame that the static clip repeats, clamped to [0, T); frame 0 by default.
        dtype: float32, bfloat16 or float16; on a CPU float64 as well.
        layout: memory order of the result: "ncdhw" (contiguous) or "channels_last_3d".
        static: "none"; "frame": (B, 3, 1, h, w), to be expanded over time; "full": (B, 3, T, h, w), materialised.
        joint: with ``static="full"``, write both clips into one buffer, so that a model can take both in one forward
            without ``torch.cat``.
        validate: check the values of ``top``, ``left`` and ``t_idx`` and raise instead of clamping. Waits for the
            device; not for use under torch.compile.

    Returns:
        (motion (B, 3, T, h, w), static clip or None). With ``joint``: (clips (2B, 3, T, h, w), None), where
        ``clips[:B]`` are the motion clips and ``clips[B:]`` the static ones.

    Raises:
        TypeError: a wrong dtype. ValueError: a wrong shape, option or (with ``validate``) value.
    """
    clip_size = check_clip_arguments(frames, mean, std, size, top, left, flip, t_idx, dtype, layout, static, joint)
    if validate:
        check_clip_values(frames, clip_size, top, left, t_idx)
    motion, still = clip_prep_op(
        frames,
        top,
        left,
        flip,
        t_idx,
        clip_size,
        list(mean),
        list(std),
        dtype,
        layout == "channels_last_3d",
        static,
        joint,
    )
    return motion, still if static != "none" and not joint else None


def check_clip_arguments(frames, mean, std, size, top, left, flip, t_idx, dtype, layout, static, joint) -> list[int]:
    """Everything that can be checked without reading the device. Returns the crop's [h, w]."""
    if frames.dtype != torch.uint8:
        raise TypeError(f"clip_prep: frames must be uint8, got {frames.dtype}")
    if frames.dim() != 5 or frames.shape[4] != 3:
        raise ValueError(f"clip_prep: frames must be (B, T, H, W, 3), got {tuple(frames.shape)}")
    batch, length, height, width, _ = frames.shape
    if batch < 1 or length < 1:
        raise ValueError(f"clip_prep: frames must hold at least one frame, got {tuple(frames.shape)}")
    if frames.stride(4) != 1 or (width > 1 and frames.stride(3) != 3):
        raise ValueError(
            f"clip_prep: pixels must be packed, strides (..., 3, 1), got {frames.stride()}: use .contiguous()"
        )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"clip_prep: mean and std must be three numbers, std > 0, got {tuple(mean)} and {tuple(std)}")
    if layout not in LAYOUTS:
        raise ValueError(f"clip_prep: layout must be one of {LAYOUTS}, got {layout!r}")
    if static not in STATICS:
        raise ValueError(f"clip_prep: static must be one of {STATICS}, got {static!r}")
    if joint and static != "full":
        raise ValueError(f'clip_prep: joint needs static="full" (both halves have T frames), got static={static!r}')
    if dtype not in DTYPES and not (dtype == torch.float64 and frames.device.type != "cuda"):
        raise TypeError(f"clip_prep: dtype must be float32, bfloat16 or float16 on {frames.device.type}, got {dtype}")
    h, w = (height, width) if size is None else size
    if not (1 <= h <= height and 1 <= w <= width):
        raise ValueError(f"clip_prep: a crop of {h}x{w} does not fit frames of {height}x{width}")
    # offsets inside one frame are 32-bit in the kernel; those across frames and clips are 64-bit
    if height * frames.stride(2) >= 2**31 or h * w * 3 >= 2**31:
        raise ValueError(f"clip_prep: a frame must span less than 2**31 bytes, got {height}x{width}, {frames.stride()}")
    for name, index in (("top", top), ("left", left), ("flip", flip), ("t_idx", t_idx)):
        if index is None:
            continue
        if index.is_floating_point() or index.is_complex() or (index.dtype == torch.bool and name != "flip"):
            raise TypeError(f"clip_prep: {name} must hold integers, got {index.dtype}")
        if index.shape != (batch,):
            raise ValueError(f"clip_prep: {name} must have shape ({batch},), got {tuple(index.shape)}")
        if index.device != frames.device:
            raise ValueError(f"clip_prep: {name} is on {index.device}, the frames on {frames.device}")
    return [h, w]


def check_clip_values(frames: Tensor, size: Sequence[int], top, left, t_idx) -> None:
    """Raise ValueError for a crop or frame index outside the clip. Waits for the device."""
    _, length, height, width, _ = frames.shape
    limits = (("top", top, height - size[0]), ("left", left, width - size[1]), ("t_idx", t_idx, length - 1))
    for name, index, last in limits:
        if index is not None and bool(((index < 0) | (index > last)).any()):
            raise ValueError(f"clip_prep: {name} must be in [0, {last}], got {index.tolist()}")


def normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    """(scale, bias) per channel with ``(u8 / 255 - mean) / std == u8 * scale + bias``."""
    return [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]


def allocate_clips(
    frames: Tensor, size: Sequence[int], dtype: torch.dtype, channels_last: bool, static: str, joint: bool
) -> tuple[Tensor, Tensor]:
    """Uninitialised (motion or joint buffer, static clip); the second is empty where there is none."""
    batch, length = frames.shape[:2]
    order = torch.channels_last_3d if channels_last else torch.contiguous_format

    def clips(n: int, t: int) -> Tensor:
        return torch.empty((n, 3, t, *size), dtype=dtype, device=frames.device, memory_format=order)

    motion = clips(2 * batch if joint else batch, length)
    if static == "none" or joint:
        return motion, torch.empty(0, dtype=dtype, device=frames.device)
    return motion, clips(batch, length if static == "full" else 1)


def split_clips(buffer: Tensor, still: Tensor, batch: int, static: str, joint: bool) -> tuple[Tensor, Tensor | None]:
    """(motion clips, static clips or None) of what ``allocate_clips`` returned."""
    if joint:
        return buffer[:batch], buffer[batch:]
    return buffer, None if static == "none" else still


# ------------------------------------------------------------------------------------------------- plain torch


def clip_prep_torch(
    frames: Tensor,
    top: Tensor | None,
    left: Tensor | None,
    flip: Tensor | None,
    t_idx: Tensor | None,
    size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels_last: bool,
    static: str,
    joint: bool,
) -> tuple[Tensor, Tensor]:
    """The CPU form: the same arithmetic in the same order as the kernel, so float32 results are equal to the bit."""
    batch, length, height, width, _ = frames.shape
    h, w = size
    buffer, still = allocate_clips(frames, size, dtype, channels_last, static, joint)
    motion, static_clip = split_clips(buffer, still, batch, static, joint)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    work = motion if dtype == wide else torch.empty_like(motion, dtype=wide)
    if top is None and left is None and flip is None:
        work.copy_(frames[:, :, :h, :w].permute(0, 4, 1, 2, 3))
    else:
        zeros = [0] * batch
        tops = zeros if top is None else top.clamp(0, height - h).tolist()
        lefts = zeros if left is None else left.clamp(0, width - w).tolist()
        flips = zeros if flip is None else flip.tolist()
        for clip, source, y, x, mirrored in zip(work, frames, tops, lefts, flips, strict=True):
            crop = source[:, y : y + h, x : x + w]
            clip.copy_((crop.flip(2) if mirrored else crop).permute(3, 0, 1, 2))
    scale, bias = (torch.tensor(v, dtype=wide).view(3, 1, 1, 1) for v in normalisation(mean, std))
    work.mul_(scale).add_(bias)
    if work is not motion:
        motion.copy_(work)
    if static_clip is not None:
        if t_idx is None:
            frame = motion[:, :, :1]
        else:
            frame = motion[torch.arange(batch), :, t_idx.long().clamp(0, length - 1)].unsqueeze(2)
        static_clip.copy_(frame.expand_as(static_clip))
    return buffer, still


# ------------------------------------------------------------------------------------------------- Triton


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


# ------------------------------------------------------------------------------------------------- custom op


clip_prep_op = torch.library.custom_op("unstill::clip_prep", clip_prep_torch, mutates_args=(), device_types="cpu")
clip_prep_op.register_kernel("cuda")(clip_prep_triton)


@clip_prep_op.register_fake
def _(frames, top, left, flip, t_idx, size, mean, std, dtype, channels_last, static, joint):
    return allocate_clips(frames, size, dtype, channels_last, static, joint)

"""Clip preparation: uint8 frames -> normalised motion clip and static clip, in one read of the frames.

Crop offset, horizontal flip, normalisation, cast and memory layout are fused; the static clip is one frame of the
motion clip, bit for bit. Eager torch needs eleven kernels and two float32 copies of the batch for the same result.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .operators import clip_prep_op

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

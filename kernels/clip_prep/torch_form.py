"""Clip preparation in plain torch: the CPU form, and the tensors that both forms fill."""

from collections.abc import Sequence

import torch
from torch import Tensor


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

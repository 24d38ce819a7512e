"""Regions of decoded frames, resized as DALI's ``fn.resize`` does with ``antialias`` and a linear filter, in PyTorch.

The filter is a triangle of twice the step between output pixels, at least of two input pixels, and reaches beyond the
region up to the border of the picture. It is separable: two matrix products a frame, with one matrix for the rows and
one for the columns of each clip.

All numbers are integers that float32 and TF32 hold exactly: weights in 1/2048, sums of the first product rounded to 1/8
level. So the result is the same on every device, for any order of summation and any number of clips at a time. It is
within one level of DALI's (`tests/pipeline/loading/test_resize.py`).
"""

import numpy as np
import torch

_ONE = 2048  # the weights of an output pixel sum to this; 11 bits, what TF32 holds
_STEP = 256  # 2048 / 8: what the first product is divided by, to 11 bits again
_PIXELS = 1 << 25
"""Values that are converted to float32 at a time: 130 frames of 336x256."""
WORKSPACE = 9 * _PIXELS
"""Bytes that a resize takes at most beside its result, as long as it makes pictures smaller: two arrays of float32, and
the matrices, of which those of 336x256 to 224x224 take a quarter of that."""


def taps(start: np.ndarray, end: np.ndarray, length: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which input pixels each output pixel is made of, along one axis.

    Args:
        start, end: (n,), of the regions, in pixels.
        length: int (n,), of the pictures.
        size: of the output.

    Returns:
        ``(at, weight)``, int64 (n, size, K): numbers of input pixels, each once but for -1, which is none; and weights
        in 1/2048 that sum to 1.
    """
    start, end = (np.clip(side.astype(np.float64), 0, length) for side in (start, end))
    step = (end - start)[:, None] / size
    centre = start[:, None] + (np.arange(size) + 0.5) * step
    radius = np.maximum(1.0, np.abs(step))[..., None]
    first = np.ceil(centre[..., None] - radius - 0.5)
    at = first + np.arange(int(np.ceil(2 * radius.max())) + 1)
    last = length[:, None, None] - 1
    share = np.cumsum(np.maximum(0.0, 1 - np.abs(at + 0.5 - centre[..., None]) / radius), axis=-1)
    share *= _ONE / share[..., -1:]
    share[at < 0] = 0.0  # the first pixel stands for those before it, and the last one for those after it
    np.copyto(share, _ONE, where=at >= last)
    weight = np.diff(np.rint(share), axis=-1, prepend=0.0)
    at[(at < 0) | (at > last)] = -1
    return at.astype(np.int64), weight.astype(np.int64)


def matrix(at: torch.Tensor, weight: torch.Tensor, length: int) -> torch.Tensor:
    """What ``taps`` found as float32 (n, size, length)."""
    out = torch.zeros(*at.shape[:2], 1 + length, device=at.device)
    return out.scatter_(2, at + 1, weight.float())[..., 1:]


def resized(frames: torch.Tensor, clip: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Resize a region of each frame.

    Args:
        frames: uint8 (F, h, w, 3).
        clip: int64 (F,), whose matrices each frame takes.
        rows, columns: float32 (n, size, h) and (n, size, w), of ``matrix``.

    Returns:
        uint8 (F, size, size, 3).
    """
    height, width = frames.shape[1:3]
    together = max(1, _PIXELS // (3 * height * width))
    parts = zip(frames.split(together), clip.split(together), strict=True)
    return torch.cat([_resized(part, rows[number], columns[number]) for part, number in parts])


def _resized(frames: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    count, _, width, _ = frames.shape
    size = rows.shape[1]
    lines = torch.bmm(rows, frames.flatten(2).float()).mul_(1 / _STEP).round_()
    lines = lines.view(count, size, width, 3).permute(0, 3, 1, 2).reshape(count, 3 * size, width)
    pixels = torch.bmm(lines, columns.transpose(1, 2)).mul_(_STEP / _ONE**2).round_()
    return pixels.view(count, 3, size, size).permute(0, 2, 3, 1).to(torch.uint8)

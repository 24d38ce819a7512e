"""RandAugment's picture operators on clips of a batch, each clip with a strength of its own, all frames of it alike.

Clips are float (B,T,3,h,w) with whole numbers 0..255, and stay so. Equal to torchvision's operators on each clip by
itself (tests/trainer/augmentations/test_rand_augment.py); those that have no strength are called from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def brightness(clips: Tensor, factor: Tensor) -> Tensor:
    """Every pixel times ``factor`` (B,)."""
    return _whole(_each(factor, clips) * clips)


def saturation(clips: Tensor, factor: Tensor) -> Tensor:
    """Away from grey (factor above 1) or towards it."""
    return _blend(clips, _grey(clips), factor)


def contrast(clips: Tensor, factor: Tensor) -> Tensor:
    """Away from each frame's mean grey, or towards it."""
    return _blend(clips, _grey(clips).mean((-3, -2, -1), keepdim=True), factor)


def sharpness(clips: Tensor, factor: Tensor) -> Tensor:
    """Away from a smoothed picture, or towards it; the outermost pixels stay."""
    import torch
    import torch.nn.functional as F

    kernel = torch.full((1, 1, 3, 3), 1 / 13, device=clips.device, dtype=clips.dtype)
    kernel[:, :, 1, 1] = 5 / 13
    flat = clips.flatten(0, 2)[:, None]
    smooth = clips.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(flat, kernel).round().view(*clips.shape[:3], flat.shape[-2] - 2, -1)
    return _whole(clips + _each(1 - factor, clips) * (smooth - clips))


def solarize(clips: Tensor, threshold: Tensor) -> Tensor:
    """Pixels from ``threshold`` (B,) on are inverted."""
    import torch

    return torch.where(clips >= _each(threshold, clips), 255 - clips, clips)


def solarize_add(clips: Tensor, amount: Tensor) -> Tensor:
    """Pixels below 128 are raised by ``amount`` (B,); timm's, torchvision has none."""
    import torch

    return torch.where(clips < 128, (clips + _each(amount.round(), clips)).clamp(max=255), clips)


def posterize(clips: Tensor, bits: Tensor) -> Tensor:
    """The highest ``bits`` (B,) of each pixel are kept."""
    step = _each(2.0 ** (8 - bits.round()), clips)
    return (clips / step).floor() * step


def autocontrast(clips: Tensor, _: Tensor) -> Tensor:
    """Each channel of each frame is stretched to 0..255."""
    from torchvision.transforms.v2 import functional

    return functional.autocontrast(_bytes(clips)).to(clips.dtype)


def equalize(clips: Tensor, _: Tensor) -> Tensor:
    """Each channel of each frame gets an even histogram."""
    from torchvision.transforms.v2 import functional

    return functional.equalize(_bytes(clips)).to(clips.dtype)


def invert(clips: Tensor, _: Tensor) -> Tensor:
    """255 minus each pixel."""
    return 255 - clips


def rotate(clips: Tensor, degrees: Tensor) -> Tensor:
    """Counter-clockwise about the middle; what comes from outside is grey."""
    angle = degrees.deg2rad()
    cos, sin, zero = angle.cos(), angle.sin(), angle * 0
    return _warp(clips, (cos, -sin, zero), (sin, cos, zero))


def shear_x(clips: Tensor, amount: Tensor) -> Tensor:
    """Rows move by ``amount`` (B,) times their distance from the top."""
    one = amount * 0 + 1
    return _warp(clips, (one, amount, amount * clips.shape[-2] / 2), (one * 0, one, one * 0))


def shear_y(clips: Tensor, amount: Tensor) -> Tensor:
    """Columns move by ``amount`` (B,) times their distance from the left."""
    one = amount * 0 + 1
    return _warp(clips, (one, one * 0, one * 0), (amount, one, amount * clips.shape[-1] / 2))


def translate_x(clips: Tensor, share: Tensor) -> Tensor:
    """To the right by a share (B,) of the width."""
    one = share * 0 + 1
    return _warp(clips, (one, one * 0, -share * clips.shape[-1]), (one * 0, one, one * 0))


def translate_y(clips: Tensor, share: Tensor) -> Tensor:
    """Downwards by a share (B,) of the height."""
    one = share * 0 + 1
    return _warp(clips, (one, one * 0, one * 0), (one * 0, one, -share * clips.shape[-2]))


def _warp(clips: Tensor, x_from: tuple[Tensor, ...], y_from: tuple[Tensor, ...]) -> Tensor:
    """Bilinear; a pixel (x, y), counted from the middle, is taken from (a x + b y + c) of ``x_from`` and ``y_from``."""
    import torch
    import torch.nn.functional as F

    batch, time, channels, height, width = clips.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=clips.device) - (height - 1) / 2,
        torch.arange(width, device=clips.device) - (width - 1) / 2,
        indexing="ij",
    )
    sources = [
        (a.view(-1, 1, 1) * x + b.view(-1, 1, 1) * y + c.view(-1, 1, 1)) / (size / 2)
        for (a, b, c), size in ((x_from, width), (y_from, height))
    ]
    grid = torch.stack(sources, 3).to(clips.dtype)
    pixels = clips.reshape(batch, time * channels, height, width) - 128  # outside is 0, which is to be grey
    found = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return _whole(found.view_as(clips).round() + 128)


def _grey(clips: Tensor) -> Tensor:
    red, green, blue = clips.unbind(2)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor().unsqueeze(2)


def _blend(clips: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = _each(factor, clips)
    return _whole(factor * clips + (1 - factor) * other)


def _whole(clips: Tensor) -> Tensor:
    return clips.clamp(0, 255).floor()


def _each(values: Tensor, clips: Tensor) -> Tensor:
    return values.to(clips.dtype).view(-1, 1, 1, 1, 1)


def _bytes(clips: Tensor) -> Tensor:
    import torch

    return clips.to(torch.uint8)

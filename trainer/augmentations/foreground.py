"""Where the foreground of a clip is, from frame differences and colours (FAME, arXiv 2109.15130).

    D  = mean_t sum_c |x_t - x_{t+1}|, blurred, scaled to [0,1]         where something moves
    seeds: the highest half of D is foreground, the lowest tenth is background
    colour histograms of both seeds -> P_fg / (P_fg + P_bg) of each pixel's colour, blurred, scaled
    the top ``beta`` of the pixels are the foreground, the same in all frames

Histograms are over 10 x 10 x 10 bins of the mean frame's colour, hue and saturation as a point of the plane. The
released code takes a hue in radians and multiplies it by 2 pi as if it were in turns, and rounds to the nearest bin;
published results were made so. The masks of the two forms overlap by about two thirds (intersection over union 0.69).
"""

from math import pi
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Colour = Literal["published", "circle"]
BINS = 10
FOREGROUND_SEEDS, BACKGROUND_SEEDS = 0.5, 0.1
BLUR_SHARE = 0.1  # width of the blur as a share of the clip's side


def foreground_mask(clips: Tensor, beta: float, colour: Colour = "published") -> Tensor:
    """bool (B,h,w): where the foreground is, exactly int(beta * h * w) pixels, at least one.

    Args:
        clips: (B,3,T,h,w), in [0,1].
        beta: share of the foreground.
        colour: how colours are binned, see ``colour_bins``.
    """
    b, _, frames, h, w = clips.shape
    if frames > 1:
        motion = (clips[:, :, 1:] - clips[:, :, :-1]).abs().sum(1).mean(1)
    else:
        motion = clips.new_zeros(b, h, w)
    motion = scaled(blurred(motion))
    foreground = top_share(motion, FOREGROUND_SEEDS).flatten(1)
    background = top_share(-motion, BACKGROUND_SEEDS).flatten(1)
    bins = colour_bins(clips.mean(2), colour).flatten(1)
    ones = torch.ones_like(bins, dtype=clips.dtype)
    empty = clips.new_zeros(b, BINS**3)
    p_fg = empty.scatter_add(1, bins, ones * foreground)
    p_bg = (empty + 1).scatter_add(1, bins, ones * background)
    p_fg, p_bg = (p / p.sum(1, keepdim=True) for p in (p_fg, p_bg))
    likely = (p_fg / (p_fg + p_bg)).gather(1, bins).view(b, h, w)
    return top_share(scaled(blurred(likely)), beta)


def colour_bins(frames: Tensor, colour: Colour = "published") -> Tensor:
    """int64 (B,h,w): which of 1000 colours each pixel of (B,3,h,w) in [0,1] has.

    Args:
        frames: pictures, in [0,1].
        colour: "circle" puts hue and saturation on the colour circle; "published" turns the hue by 2 pi times its
            angle in radians, as the released code does.
    """
    hue, saturation, value = hsv(frames.clamp(0, 1))
    angle = 2 * pi * hue
    if colour == "published":
        angle = 2 * pi * angle
    x, y = (saturation * torch.cos(angle) + 1) / 2, (saturation * torch.sin(angle) + 1) / 2
    if colour == "published":
        x, y, value = (((axis * (BINS - 1) + 1).round() - 1).long() for axis in (x, y, value))
    else:
        x, y, value = ((axis * BINS).long().clamp(0, BINS - 1) for axis in (x, y, value))
    return (x * BINS + y) * BINS + value


def hsv(frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue (in turns, [0,1)), saturation and value, (B,h,w) each, of (B,3,h,w) in [0,1]."""
    r, g, b = frames.unbind(1)
    value, least = frames.amax(1), frames.amin(1)
    spread = value - least
    divisor = torch.where(spread > 0, spread, 1)
    hue = torch.where(
        value == r, (g - b) / divisor, torch.where(value == g, 2 + (b - r) / divisor, 4 + (r - g) / divisor)
    )
    saturation = torch.where(value > 0, spread / torch.where(value > 0, value, 1), 0)
    return (hue / 6) % 1, saturation, value


def blurred(image: Tensor) -> Tensor:
    """(B,h,w) under a Gaussian of odd width k, a tenth of the picture, and sigma k / 3; mirrored at the borders."""
    k = 2 * (int(BLUR_SHARE * image.shape[-1]) // 2) + 1
    if k == 1:
        return image
    at = torch.arange(k, device=image.device, dtype=image.dtype) - k // 2
    kernel = torch.exp(-(at**2) / (2 * (k / 3) ** 2))
    kernel = kernel / kernel.sum()
    padded = F.pad(image[:, None], (k // 2,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, k)), kernel.view(1, 1, k, 1))[:, 0]


def scaled(image: Tensor) -> Tensor:
    """(B,h,w) moved and stretched to [0,1], each by itself; a constant one becomes 0."""
    low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    return (image - low) / torch.where(high > low, high - low, 1)


def top_share(image: Tensor, share: float) -> Tensor:
    """bool (B,h,w): the highest ``share`` of the pixels, exactly so many whatever the ties."""
    flat = image.flatten(1)
    count = max(1, int(share * flat.shape[1]))
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    return chosen.scatter(1, flat.topk(count, 1).indices, True).view_as(image)

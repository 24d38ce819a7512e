"""Painting people out of a video without a network: what was seen in another frame, then a smooth fill.

    1. the mask is widened by ``MARGIN`` of the shorter side, for hair and shadows that masks leave out
    2. a hidden pixel takes the value that it has in the nearest frame where it is not hidden (the earlier one on a tie)
    3. pixels that are hidden in all frames are filled from their surroundings, coarse to fine ("push-pull")

HAT's published videos were made with a video inpainting network. This is cheaper, and exact where the camera stands
still; where it moves, step 2 leaves a shifted background in the person's place.
"""

import numpy as np
from PIL import Image, ImageFilter

MARGIN = 0.02


def painted_out(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The frames without what the masks cover.

    Args:
        frames: uint8 (T,H,W,3).
        masks: bool (T,H,W).
    """
    hidden = np.stack([_widened(mask) for mask in masks])
    count = len(frames)
    index = np.arange(count)[:, None, None]
    before = np.maximum.accumulate(np.where(hidden, -1, index), 0)  # nearest visible frame up to t, or -1
    after = np.minimum.accumulate(np.where(hidden, 2 * count, index)[::-1], 0)[::-1]  # from t on, or 2T
    earlier = np.where(before < 0, 4 * count, index - before) <= after - index
    source = np.where(earlier, before, after)
    never = (before[-1] < 0)[None].repeat(count, 0)  # hidden in all frames
    source = np.where(never, 0, np.clip(source, 0, count - 1))
    rows, columns = np.indices(hidden.shape[1:])
    filled = frames[source, rows, columns]
    if never.any():
        still = [_push_pull(frame, ~gap) for frame, gap in zip(filled, never, strict=True)]
        filled = np.where(never[..., None], np.stack(still), filled)
    return np.where(hidden[..., None], filled, frames)


def _widened(mask: np.ndarray) -> np.ndarray:
    reach = max(1, round(MARGIN * min(mask.shape)))
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.filter(ImageFilter.MaxFilter(2 * reach + 1))) > 0


def _push_pull(frame: np.ndarray, known: np.ndarray) -> np.ndarray:
    """uint8 (H,W,3): unknown pixels from the mean of known ones around them, at the finest scale that has any."""
    levels = [(frame.astype(np.float32) * known[..., None], known.astype(np.float32))]
    while min(levels[-1][1].shape) > 1 and not (levels[-1][1] > 0).all():
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1][..., None])[..., 0]))
    total, weight = levels.pop()
    mean = total / np.maximum(weight, 1e-6)[..., None] if (weight > 0).any() else np.zeros_like(total)
    while levels:
        total, weight = levels.pop()
        larger = _enlarged(mean, weight.shape)
        mean = np.where(weight[..., None] > 0, total / np.maximum(weight, 1e-6)[..., None], larger)
    return np.clip(mean + 0.5, 0, 255).astype(np.uint8)


def _halved(values: np.ndarray) -> np.ndarray:
    """Sums over 2 x 2 cells; an odd last row or column is a cell of its own."""
    padded = np.pad(values, ((0, values.shape[0] % 2), (0, values.shape[1] % 2), (0, 0)))
    return padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]


def _enlarged(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H,W,3) of ``shape``, bilinear."""
    height, width = 2 * values.shape[0], 2 * values.shape[1]
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(values[..., c])).resize((width, height), Image.Resampling.BILINEAR)
        )
        for c in range(values.shape[2])
    ]
    return np.stack(planes, -1)[: shape[0], : shape[1]]

"""Which frames of a video each window shows, and windows put together from frames that come in parts."""

from collections.abc import Iterator

import numpy as np

from ....pipeline.errors import InputError
from ..feature_folder import window_count


def shown_frames(window: int, frames: int | None, trained_on: int) -> np.ndarray:
    """int64 (T,): which frames of a window the network sees, the middles of T equal parts.

    Args:
        window: frames of a window.
        frames: T; None: all, or ``trained_on`` if that is fewer.
        trained_on: frames of the clips that the network was trained on.

    Raises:
        InputError: more frames are wanted than a window has.
    """
    count = frames or min(window, trained_on)
    if count > window:
        raise InputError(f"frames {count}: a window has {window}; expected at most as many")
    return (2 * np.arange(count) + 1) * window // (2 * count)


def window_frames(total: int, window: int, stride: int, shown: np.ndarray) -> np.ndarray:
    """int64 (W, T): the frames that each window of a video of ``total`` frames shows; a short one repeats its last."""
    first = stride * np.arange(window_count(total, window, stride))
    return np.minimum(first[:, None] + shown, total - 1)


def windows(parts: Iterator[tuple[np.ndarray, np.ndarray]], wanted: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The windows of a video, in order; no more than a window and a part of it is kept.

    Args:
        parts: numbers int64 (n,), frames (n, ...), ascending over all parts.
        wanted: int64 (W, T), from ``window_frames``.

    Yields:
        ``(frames, rows)``: what is kept, and int64 (T,), the rows of it that the window shows. Copy them before the
        next.
    """
    numbers, frames = next(parts)
    for row in wanted:
        while numbers[-1] < row[-1]:
            begin = int(np.searchsorted(numbers, row[0]))
            more, new = next(parts)
            numbers = np.concatenate([numbers[begin:], more])
            frames = np.concatenate([frames[begin:], new]) if begin < len(frames) else new
        yield frames, np.searchsorted(numbers, row)

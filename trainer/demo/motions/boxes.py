"""Boxes around the moving actor, from the exact masks: what a detector of people is for real videos."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ....pipeline.atomic_files import write_atomic
from .files import read_mask

Span = tuple[int, int]


def write_boxes(videos: Path, split: str, out: Path) -> Path:
    """Write the boxes of every frame of a split, for ``--people``: sides are shares of the picture, names are keys.

    Args:
        videos: folder made by ``write_motions``.
        split: one of its splits.
        out: the .csv, with the columns video, frame, left, top, right, bottom.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("video", "frame", "left", "top", "right", "bottom"))
    root = videos / "masks" / split
    for path in sorted(root.glob("*/*.png")):
        key = path.relative_to(root).with_suffix("").as_posix().replace("/", "_")
        for frame, mask in enumerate(read_mask(path) >= 128):
            for sides in boxes_on_torus(mask):
                writer.writerow((key, frame, *(f"{side / len(mask):.6f}" for side in sides)))
    write_atomic(out, text.getvalue().encode())
    return out


def boxes_on_torus(mask: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """The smallest box around a mask (H,W) that may reach over the borders, as up to four that do not.

    Yields:
        left, top, right, bottom in pixels, the last two exclusive; nothing for an empty mask.
    """
    for top, bottom in spans_on_circle(np.any(mask, axis=1)):
        for left, right in spans_on_circle(np.any(mask, axis=0)):
            yield left, top, right, bottom


def largest_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The largest of ``boxes_on_torus``, the first of equal ones; None for an empty mask."""
    return max(boxes_on_torus(mask), key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)


def spans_on_circle(occupied: np.ndarray) -> list[Span]:
    """The shortest arc that covers every occupied place of a circle, cut at its seam: none, one or two spans."""
    at = np.flatnonzero(occupied)
    if not len(at):
        return []
    size = len(occupied)
    gaps = np.diff(np.append(at, at[0] + size))  # to the next occupied place
    widest = len(at) - 1 - int(gaps[::-1].argmax())  # of equal ones the last: at the seam nothing need be cut
    begin, last = int(at[(widest + 1) % len(at)]), int(at[widest])
    return [(begin, last + 1)] if begin <= last else [(begin, size), (0, last + 1)]

"""Where people are in each frame of a video, from the files that datasets come with.

    segmentation  MASKS/<class>/<video>.png    a strip: the masks of all frames side by side, or
                  MASKS/<class>/<video>/*.png  one picture a frame, in order of name
                  MASKS/<class>/<video>.json   COCO run lengths: a list with one entry a frame, null without people
    jhmdb         MASKS/<class>/<video>/puppet_mask.mat   part_mask (H,W,T), for JHMDB's videos, which are cut out of
                  those of HMDB51 and called as they are
    boxes         MASKS, one .csv with the columns video,frame,left,top,right,bottom, or one .json
                  {video: {frame: [[left, top, right, bottom], ...]}}, or one .pkl as UCF101-24 comes with
                  (`box_pickles.py`), or a folder
                  MASKS/<class>/<video>/*.txt, a file a frame named by its number from 1: "class left top right bottom"

Frames in .csv and .json count from 0; pixels are those of the source video; ``video`` is its path without suffix. Masks
must be there for every frame. White is foreground in black and white pictures, and every colour but the first in others
with a palette (object numbers, as trackers write them); where pictures hold class numbers, say which.
"""

import csv
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..bounded_files import open_plain, read_json
from ..errors import InputError
from .box_pickles import Box, Boxes, pickled_boxes
from .coco_rle import decode_rle
from .matlab import read_mat

MaskFrom = Literal["segmentation", "jhmdb", "boxes"]
MaskValue = int | Literal["any"]
MaskReader = Callable[[str, tuple[int, int, int]], np.ndarray | None]


SPARE_FRAMES = 2  # by which video and masks may differ: decoders do not agree on the last frames of broken files


def open_masks(
    path: Path, kind: MaskFrom, *, first_box_only: bool = False, value: MaskValue | None = None
) -> MaskReader:
    """A function (video, (T,H,W)) -> bool (T',H,W) with T' <= T, or None where the video has no masks.

    Args:
        path: file or folder, see above.
        kind: what it holds.
        first_box_only: of several boxes in a frame use the first, as the published UCF101 benchmark does.
        value: for pictures: the grey level or palette index of foreground, or "any" for all but 0; None: see above.

    Raises:
        InputError: no such path, an unknown kind, or a file that is not what it should be; the returned function
            raises it for files that it opens, and where these are not masks of all frames in the video's size.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected masks")
    if kind == "boxes":
        read = read_boxes(path)
        return lambda video, shape: _fill(read(video), shape, first_box_only)
    if kind not in ("segmentation", "jhmdb"):
        raise InputError(f"mask_from is {kind!r}; expected one of segmentation, jhmdb, boxes")
    find = _find_jhmdb if kind == "jhmdb" else partial(_find_segmentation, value=value)

    def masks(video: str, shape: tuple[int, int, int]) -> np.ndarray | None:
        try:
            found = find(path, video, shape)
        except (ValueError, OSError, KeyError, TypeError, AttributeError, Image.DecompressionBombError) as error:
            raise InputError(
                f"{path}: the masks of {video} are not readable ({error}); remove or replace them"
            ) from None
        if found is None:
            return None
        if found.shape[1:] != shape[1:]:
            raise InputError(
                f"{path}: masks of {video} are {found.shape[2]} x {found.shape[1]}, its frames {shape[2]} x "
                f"{shape[1]}; {_OWN[kind]}"
            )
        if abs(len(found) - shape[0]) > SPARE_FRAMES:
            raise InputError(f"{path}: {len(found)} masks of {video}, which has {shape[0]} frames; {_OWN[kind]}")
        return found[: shape[0]]

    return masks


_OWN = {
    "segmentation": "make masks of every frame in the videos' own size",
    "jhmdb": "give the videos of JHMDB (ReCompress_Videos), not those of HMDB51",
}


def either(one: MaskReader, other: MaskReader) -> MaskReader:
    """A reader of pixels that either of two says are foreground; None where neither has masks, or only one has."""

    def masks(video: str, shape: tuple[int, int, int]) -> np.ndarray | None:
        a, b = one(video, shape), other(video, shape)
        if a is None or b is None:
            return None
        count = min(len(a), len(b))
        return a[:count] | b[:count]

    return masks


def _find_segmentation(
    root: Path, video: str, shape: tuple[int, int, int], value: MaskValue | None
) -> np.ndarray | None:
    strip, folder, runs = root / f"{video}.png", root / video, root / f"{video}.json"
    if strip.is_file():
        pixels = _foreground(strip, value, shape)
        if pixels.shape[1] % shape[2]:
            raise ValueError(f"a strip {pixels.shape[1]} wide for frames {shape[2]} wide")
        return pixels.reshape(len(pixels), -1, shape[2]).transpose(1, 0, 2)
    if folder.is_dir():
        files = sorted(folder.glob("*.png"), key=_in_order)
        _check_count(len(files), shape)
        return np.stack([_foreground(file, value, shape) for file in files]) if files else None
    if runs.is_file():
        entries = read_json(runs)
        _check_count(len(entries), shape)
        empty = np.zeros(shape[1:], bool)
        return np.stack([empty if entry is None else decode_rle(entry, shape[1:]) for entry in entries])
    return None


def _check_count(masks: int, shape: tuple[int, int, int]) -> None:
    if masks > shape[0] + SPARE_FRAMES:
        raise ValueError(f"{masks} masks for {shape[0]} frames")


def _find_jhmdb(root: Path, video: str, shape: tuple[int, int, int]) -> np.ndarray | None:
    file = root / video / "puppet_mask.mat"
    if not file.is_file():
        return None
    masks = read_mat(file, ("part_mask",))["part_mask"]
    masks = masks if masks.ndim == 3 else masks[..., None]  # MATLAB drops the last axis of a single frame
    return masks.transpose(2, 0, 1) > 0


def _in_order(file: Path) -> list[tuple[int, str]]:
    """Names by the numbers in them: 2.png before 10.png."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name) if part]


def _foreground(file: Path, value: MaskValue | None, shape: tuple[int, int, int]) -> np.ndarray:
    with Image.open(file) as image:
        most = 4 * (shape[0] + SPARE_FRAMES) * shape[1] * shape[2]
        if image.width * image.height > most:
            raise ValueError(f"{file.name} has {image.width} x {image.height} pixels, too many for this video")
        numbers = np.asarray(image if image.mode in ("P", "L", "1", "I;16", "I") else image.convert("L"))
        if value is not None:  # class numbers are the indices of a palette, and its colours mean nothing
            return numbers != 0 if value == "any" else numbers == value
        grey, rgb = np.asarray(image.convert("L")), np.asarray(image.convert("RGB"))
        if image.mode == "P" and ((rgb.max(-1) > 15) & (rgb.min(-1) < 240)).any():  # colours: neither black nor white
            return numbers != 0
    if 0 < grey.max() < 128:
        raise ValueError(
            f"{file.name} is nowhere brighter than {grey.max()} of 255; say what is foreground: --mask-value"
        )
    return grey >= 128


def read_boxes(path: Path) -> Callable[[str], Boxes | None]:
    """A function from a video's name to its boxes (left, top, right, bottom) by frame, None where it has none.

    Raises:
        InputError: the file is not what it should be; see the top of this module.
    """
    if path.is_dir():
        return lambda video: _text_boxes(path / video)
    readers = {".json": _json_boxes, ".pkl": pickled_boxes}
    try:
        table = readers.get(path.suffix, _csv_boxes)(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise InputError(
            f"{path}: not readable as boxes ({type(error).__name__}: {error}); expected a .csv with the columns video, "
            "frame, left, top, right, bottom, a .json {video: {frame: [[left, top, right, bottom]]}}, or a .pkl of "
            "UCF101-24"
        ) from None
    return table.get


def _csv_boxes(path: Path) -> dict[str, Boxes]:
    table: dict[str, Boxes] = {}
    with open(path, newline="", opener=open_plain) as file:
        for row in csv.DictReader(file):
            box = _box(row["left"], row["top"], row["right"], row["bottom"])
            table.setdefault(row["video"], {}).setdefault(int(row["frame"]), []).append(box)
    return table


def _json_boxes(path: Path) -> dict[str, Boxes]:
    return {
        video: {int(frame): [_box(*box) for box in boxes] for frame, boxes in frames.items()}
        for video, frames in read_json(path).items()
    }


def _box(left: float | str, top: float | str, right: float | str, bottom: float | str) -> Box:
    box = float(left), float(top), float(right), float(bottom)
    if not all(map(math.isfinite, box)):
        raise ValueError(f"a box {box} that is not finite")
    return box


def _text_boxes(folder: Path) -> Boxes | None:
    if not folder.is_dir():
        return None
    found: Boxes = {}
    for file in sorted(folder.glob("*.txt")):
        try:
            lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
            found[int(file.stem) - 1] = [_box(*line[1:5]) for line in lines]
            if any(len(line) < 5 for line in lines):
                raise ValueError("expected: class left top right bottom")
        except ValueError as error:
            raise InputError(f"{file}: not readable as boxes ({error})") from None
    return found


def _fill(boxes: Boxes | None, shape: tuple[int, int, int], first_only: bool) -> np.ndarray | None:
    if boxes is None:
        return None
    masks = np.zeros(shape, bool)
    for frame, found in boxes.items():
        if 0 <= frame < shape[0]:
            for left, top, right, bottom in found[:1] if first_only else found:
                # cut off, not rounded, as in the published set's code
                rows, columns = (
                    slice(max(0, int(top)), max(0, int(bottom))),
                    slice(max(0, int(left)), max(0, int(right))),
                )
                masks[frame, rows, columns] = True
    return masks

"""Boxes over time, from the files that datasets and detectors come with.

    .pkl    UCF101-24 and JHMDB as published, see ``pipeline/ood/box_pickles.py``
    .csv    video,frame,left,top,right,bottom and, where known, label, tube, score; frames count from 0. ``video`` is a
            sample's key or its path without suffix. Rows of one video, tube and label are one tube; without the column
            ``tube`` boxes of one video and label are linked from frame to frame
    .csv    of AVA, without a header: video,second,left,top,right,bottom,label and, for detections, score or person

Sides are shares of the picture, 0 to 1, where none in the file is above 2, and pixels otherwise.
"""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ....pipeline.bounded_files import open_plain
from ....pipeline.errors import InputError
from ....pipeline.ood.box_pickles import pickled_tubes

LINK_IOU = 0.3  # of two boxes of one tube in neighbouring frames
_COLUMNS = ("video", "frame", "left", "top", "right", "bottom")
_MOST_SHARE = 2.0  # a box may reach over the border, but not that far


@dataclass(frozen=True)
class Tube:
    """One person or object over time.

    Attributes:
        video: its name.
        label: class; "" where it is not known.
        frames: int64 (n,), ascending, each once, from 0.
        boxes: float64 (n,4), left, top, right, bottom.
        scores: float64 (n,), of the boxes; higher is surer.
    """

    video: str
    label: str
    frames: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class TubeFile:
    """What a file says.

    Attributes:
        tubes: in the order of the file.
        pixels: whether sides are pixels, and not shares of the picture.
    """

    tubes: tuple[Tube, ...]
    pixels: bool

    def in_shares(self, width: int, height: int) -> "TubeFile":
        """The same with sides as shares, for pictures of this size in pixels."""
        if not self.pixels:
            return self
        size = np.array([width, height, width, height], np.float64)
        return TubeFile(tuple(replace(tube, boxes=tube.boxes / size) for tube in self.tubes), False)


def read_tubes(path: Path) -> TubeFile:
    """Read a file of boxes.

    Raises:
        InputError: there is none, or it is not one of the files named at the top of this module; names the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected boxes, .csv or .pkl")
    try:
        if path.suffix == ".pkl":
            tubes = [_tube(t.video, t.label, t.frames, t.boxes, np.ones(len(t.frames))) for t in pickled_tubes(path)]
        else:
            tubes = list(_csv_tubes(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        reason = f"it lacks the column {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path}: not readable as boxes ({reason}); expected a .csv with the columns {','.join(_COLUMNS)} and, "
            "where known, label, tube, score, or a .pkl of UCF101-24 or JHMDB"
        ) from None
    if not tubes:
        raise InputError(f"{path}: holds no boxes")
    farthest = max(float(np.abs(tube.boxes).max()) for tube in tubes)
    return TubeFile(tuple(tubes), farthest > _MOST_SHARE)


def problem_of(tube: Tube, frames: int, slack: int) -> str | None:
    """What is wrong with a tube in shares of a video of ``frames`` frames, or None.

    Args:
        slack: frames by which it may reach beyond the end: decoders do not agree on the last frames of broken files.
    """
    left, top, right, bottom = tube.boxes.T
    if not ((left < right) & (top < bottom)).all():
        return "a box whose right or lower side comes before the other"
    if not ((right > 0) & (bottom > 0) & (left < 1) & (top < 1)).all():
        return "a box outside the picture"
    if tube.frames[0] < 0 or tube.frames[-1] >= frames + slack:
        return f"frames {tube.frames[0]} to {tube.frames[-1]} of {frames}"
    return None


def within(tube: Tube, frames: int) -> Tube | None:
    """The part of a tube within the video, boxes cut at the picture's border; None where nothing is left."""
    keep = tube.frames < frames
    if not keep.any():
        return None
    boxes = np.clip(tube.boxes[keep], 0, 1)
    return Tube(tube.video, tube.label, tube.frames[keep], boxes, tube.scores[keep])


def plain_name(video: str) -> str:
    """A video's name as keys of samples are written: "/" and other signs become "_"."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", video)


def linked(tubes: Sequence[Tube], least: float = LINK_IOU) -> list[Tube]:
    """Boxes of one video and label linked to tubes, from frame to frame, surest first.

    A box continues the tube whose last box, in the frame before, overlaps it most and by at least ``least``.

    Args:
        tubes: each of one frame or more; they are taken apart.
        least: intersection over union.
    """
    boxes: dict[tuple[str, str], dict[int, list[tuple[float, np.ndarray]]]] = {}
    for tube in tubes:
        frames = boxes.setdefault((tube.video, tube.label), {})
        for frame, box, score in zip(tube.frames.tolist(), tube.boxes, tube.scores.tolist(), strict=True):
            frames.setdefault(frame, []).append((score, box))
    found = []
    for (video, label), frames in boxes.items():
        found += [_tube(video, label, *columns) for columns in _chains(frames, least)]
    return found


def _chains(frames: dict[int, list[tuple[float, np.ndarray]]], least: float) -> Iterator[tuple[np.ndarray, ...]]:
    """(frames, boxes, scores) of each tube of one video."""
    ended: list[list[tuple[int, float, np.ndarray]]] = []
    running: list[list[tuple[int, float, np.ndarray]]] = []
    before = None
    for frame in sorted(frames):
        if before is None or frame != before + 1:
            ended, running = ended + running, []
        going, waiting = [], list(running)
        for score, box in sorted(frames[frame], key=lambda item: -item[0]):
            overlaps = [float(box_iou(box, chain[-1][2][None])[0]) for chain in waiting]
            best = int(np.argmax(overlaps)) if overlaps else -1
            chain = waiting.pop(best) if best >= 0 and overlaps[best] >= least else []
            chain.append((frame, score, box))
            going.append(chain)
        ended, running, before = ended + waiting, going, frame
    for chain in ended + running:
        number, score, box = zip(*chain, strict=True)
        yield np.array(number, np.int64), np.stack(box), np.array(score, np.float64)


def box_iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64 (N,): intersection over union of one box (4,) with N others (N,4); sides are lines, without a pixel's
    width added."""
    shared = np.prod(np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None), 1)
    area = np.prod(others[:, 2:] - others[:, :2], 1) + np.prod(box[2:] - box[:2])
    return shared / (area - shared)


def _csv_tubes(path: Path) -> Iterator[Tube]:
    with open(path, newline="", encoding="utf-8-sig", opener=open_plain) as file:
        first = file.readline()
        file.seek(0)
        ava = not first.lower().startswith("video,")
        rows: Iterator[dict[str, str]] = _ava_rows(csv.reader(file)) if ava else iter(csv.DictReader(file))
        groups: dict[tuple[str, str, str], list[tuple[int, float, list[float]]]] = {}
        has_tubes = False
        for line, row in enumerate(rows, 1 if ava else 2):
            numbers = [float(row[side]) for side in ("left", "top", "right", "bottom")]
            score = float(row.get("score") or 1)
            if not all(map(math.isfinite, [*numbers, score])):
                raise ValueError(f"line {line}: a number that is not finite")
            has_tubes = has_tubes or bool(row.get("tube"))
            key = row["video"], row.get("label") or "", row.get("tube") or (f"{line}" if ava else "")
            groups.setdefault(key, []).append((int(row["frame"]), score, numbers))
    for (video, label, _), boxes in groups.items():
        frames, scores, sides = zip(*sorted(boxes, key=lambda box: box[0]), strict=True)
        if has_tubes and len(set(frames)) < len(frames):
            raise ValueError(
                f"{video}: two boxes of one tube in frame {next(f for f in frames if frames.count(f) > 1)}"
            )
        columns = np.array(frames, np.int64), np.array(sides, np.float64), np.array(scores, np.float64)
        if has_tubes or ava:
            yield _tube(video, label, *columns)
        else:
            yield from (Tube(video, label, *(column[n : n + 1] for column in columns)) for n in range(len(frames)))


def _ava_rows(rows: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    """Rows of AVA's files with our names.

    The last column holds people's numbers where all of the file are whole, and scores otherwise. A person's number is
    left out, for it is unique only in training files.
    """
    columns = list(rows)
    scored = any(len(row) == 8 and not row[7].isdigit() for row in columns)
    for line, row in enumerate(columns, 1):
        if len(row) not in (7, 8):
            raise ValueError(f"line {line} has {len(row)} columns, expected 7 or 8")
        if not all(row[:7]):
            raise ValueError(f"line {line} has an empty column; leave out seconds without boxes")
        names = ("video", "frame", "left", "top", "right", "bottom", "label")
        found = dict(zip(names, row, strict=False)) | {"frame": str(round(float(row[1])))}
        if len(row) == 8 and scored:
            found["score"] = row[7]
        yield found


def _tube(video: str, label: str, frames: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Tube:
    if not len(frames):
        raise ValueError(f"{video}: a tube without boxes")
    order = np.argsort(frames, kind="stable")
    if (np.diff(frames[order]) < 1).any():
        raise ValueError(f"{video}: two boxes of one tube in one frame")
    return Tube(video, label, np.asarray(frames, np.int64)[order], boxes[order], scores[order])

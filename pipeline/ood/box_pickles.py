"""Boxes out of the pickles that UCF101-24 and JHMDB are published with, without running what a pickle may hold.

    pyannot.pkl         the corrected UCF101-24 (github.com/gurkirt/corrected-UCF101-Annots), either of its forms:
                        {video: {"annotations": [{"sf", "ef", "boxes", ...}], ...}}, boxes (N,4) of left, top, width,
                        height, pixels from 1, one a frame from sf to before ef, frames from 0
    UCF101v2-GT.pkl,    of the ACT detector (github.com/vkalogeiton/caffe, act-detector):
    JHMDB-GT.pkl        {"gttubes": {video: {class: [tube, ...]}}, ...}, tubes (N,5) of frame (from 1), left, top,
                        right, bottom

Unpickling calls what the file names. Here it may name four things of NumPy and nothing else.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]
Boxes = dict[int, list[Box]]


def pickled_boxes(path: Path) -> dict[str, Boxes]:
    """Boxes (left, top, right, bottom), pixels from 0, by video and by frame from 0, in the order of the file.

    Raises:
        ValueError: not one of these pickles, broken, or it names something that is not a plain array.
        KeyError, TypeError, OSError: likewise.
    """
    with open(path, "rb") as file:
        try:
            found = _Arrays(file, encoding="latin1").load()  # written by Python 2
        except (pickle.UnpicklingError, EOFError, IndexError, AttributeError) as error:
            raise ValueError(f"broken pickle: {error}") from None
    tubes = _act_tubes(found["gttubes"]) if "gttubes" in found else _corrected_tubes(found.get("db", found))
    table: dict[str, Boxes] = {}
    for video, frames, boxes in tubes:
        of_video = table.setdefault(video, {})
        for frame, box in zip(frames.tolist(), boxes.tolist(), strict=True):
            of_video.setdefault(frame, []).append(tuple(box))
    return table


def _corrected_tubes(videos: dict[str, dict]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for video, entry in videos.items():
        for tube in entry["annotations"]:
            # one byte each where they fit: left + width would overflow
            boxes = np.asarray(tube["boxes"], np.float64).reshape(-1, 4)
            corner = boxes[:, :2] - 1
            frames = np.arange(int(tube["sf"]), int(tube["ef"]))
            if len(frames) != len(boxes):
                raise ValueError(f"{video}: {len(boxes)} boxes for {len(frames)} frames")
            yield str(video), frames, np.hstack([corner, corner + boxes[:, 2:]])


def _act_tubes(videos: dict[str, dict]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for video, classes in videos.items():
        for tube in (tube for tubes in classes.values() for tube in tubes):
            tube = np.asarray(tube, np.float64).reshape(-1, 5)
            yield str(video), tube[:, 0].astype(int) - 1, tube[:, 1:]


class _Arrays(pickle.Unpickler):
    """Plain containers, numbers, text and NumPy arrays of numbers; all else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "_reconstruct": np.empty(0).__reduce__()[0],
            "scalar": np.float64(0).__reduce__()[0],
            "ndarray": np.ndarray,
            "dtype": np.dtype,
        }
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in allowed:
            return allowed[name]
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in a pickle for Python 2
            return _latin1
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which no file of boxes needs")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")

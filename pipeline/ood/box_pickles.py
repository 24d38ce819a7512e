"""Boxes out of the pickles that UCF101-24 and JHMDB are published with, without running what a pickle may hold.

    pyannot.pkl         the corrected UCF101-24 (github.com/gurkirt/corrected-UCF101-Annots), either of its forms:
                        {video: {"annotations": [{"sf", "ef", "boxes", ...}], ...}}, boxes (N,4) of left, top, width,
                        height, pixels from 1, one a frame from sf to before ef, frames from 0
    UCF101v2-GT.pkl,    of the ACT detector (github.com/vkalogeiton/caffe, act-detector):
    JHMDB-GT.pkl        {"gttubes": {video: {class: [tube, ...]}}, ...}, tubes (N,5) of frame (from 1), left, top,
                        right, bottom

Unpickling calls what the file names, and NumPy's own array types take sizes and types from the file that can corrupt
memory (a void dtype with an object field turns eight bytes into a pointer). So the file only ever reaches stand-ins,
which keep a shape, a type code and bytes, and build an array of plain numbers from them.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bounded_files import read_bounded

Box = tuple[float, float, float, float]
Boxes = dict[int, list[Box]]

_MOST_BYTES = 1 << 30  # of the file; UCF101-24's has 7 MB
_MOST_BOXES = 20_000_000  # of all videos: a small file can name one array a million times


@dataclass(frozen=True)
class PickledTube:
    """One person or object over time.

    Attributes:
        video: as the file calls it.
        label: class: a name of the file's list of classes, else the folder before the video's name, else the number.
        frames: int64 (n,), from 0.
        boxes: float64 (n,4), left, top, right, bottom, pixels from 0.
    """

    video: str
    label: str
    frames: np.ndarray
    boxes: np.ndarray


def pickled_boxes(path: Path) -> dict[str, Boxes]:
    """Boxes (left, top, right, bottom), pixels from 0, by video and by frame from 0, in the order of the file.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OSError, InputError: see ``pickled_tubes``.
    """
    table: dict[str, Boxes] = {}
    for tube in pickled_tubes(path):
        of_video = table.setdefault(tube.video, {})
        for frame, box in zip(tube.frames.tolist(), tube.boxes.tolist(), strict=True):
            of_video.setdefault(frame, []).append(tuple(box))
    return table


def pickled_tubes(path: Path) -> Iterator[PickledTube]:
    """All tubes, in the order of the file.

    Raises:
        ValueError: not one of these pickles, broken, too large, or it names something that is not a plain array.
        KeyError, TypeError, AttributeError, OSError: likewise.
        InputError: not a plain file.
    """
    data = read_bounded(path, _MOST_BYTES)
    try:
        _check_memo(data)
        found = _Arrays(io.BytesIO(data), encoding="latin1").load()  # written by Python 2
    except (pickle.UnpicklingError, EOFError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise ValueError(f"broken pickle: {error}") from None
    total = 0
    for tube in _act_tubes(found) if "gttubes" in found else _corrected_tubes(found.get("db", found)):
        total += len(tube.boxes) + 1  # an empty tube costs time, too
        if total > _MOST_BOXES:
            raise ValueError(f"more than {_MOST_BOXES} boxes")
        if not np.isfinite(tube.boxes).all():
            raise ValueError(f"{tube.video}: a box that is not finite")
        yield tube


def _corrected_tubes(videos: dict[str, dict]) -> Iterator[PickledTube]:
    for video, entry in videos.items():
        for tube in entry["annotations"]:
            # one byte each where they fit: left + width would overflow
            boxes = _table(tube["boxes"], 4)
            corner = boxes[:, :2] - 1
            first, end = int(tube["sf"]), int(tube["ef"])
            if end - first != len(boxes) or abs(first) > _MOST_BOXES:
                raise ValueError(f"{video}: {len(boxes)} boxes for {end - first} frames")
            folder, slash, _ = str(video).rpartition("/")
            label = folder if slash else str(tube.get("label", ""))[:100]
            yield PickledTube(str(video), label, np.arange(first, end), np.hstack([corner, corner + boxes[:, 2:]]))


def _act_tubes(found: dict[str, Any]) -> Iterator[PickledTube]:
    names = found.get("labels")
    names = [str(name) for name in names] if isinstance(names, list) else []
    for video, classes in found["gttubes"].items():
        for number, tubes in classes.items():
            known = isinstance(number, int) and 0 <= number < len(names)
            label = names[number] if known else str(number)[:100]
            for tube in tubes:
                tube = _table(tube, 5)
                if not (np.abs(tube[:, 0]) < _MOST_BOXES).all():
                    raise ValueError(f"{video}: a frame number that no video has")
                yield PickledTube(str(video), label, tube[:, 0].astype(int) - 1, tube[:, 1:])


def _table(value: Any, columns: int) -> np.ndarray:
    """float64 (N, columns) of a pickled array, or of a list of rows of numbers."""
    if isinstance(value, _Array):
        return value.array.astype(np.float64).reshape(-1, columns)
    if not isinstance(value, list) or len(value) > _MOST_BOXES:
        raise ValueError(f"a table of boxes is a {type(value).__name__}")
    rows = [row.array.tolist() if isinstance(row, _Array) else row for row in value]
    if not all(isinstance(row, list | tuple) and len(row) == columns for row in rows):
        raise ValueError(f"a row of a table of boxes has not {columns} numbers")
    return np.array([[float(number) for number in row] for row in rows], np.float64).reshape(-1, columns)


def _check_memo(data: bytes) -> None:
    """Refuse entries of the unpickler's table of objects that no object before them could fill: it grows to them."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count + 255:
            raise pickle.UnpicklingError(f"entry {argument} in a table of {count} objects")


class _Stand:
    """What a name in the file is given as: it can be called, and nothing of it can be changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable):
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it wants to change what it names")


class _Dtype:
    """A type of plain numbers or text; of its pickled state only the order of bytes is taken."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: str | bytes, *_: Any):
        code = code.decode("latin1") if isinstance(code, bytes) else str(code)
        if not re.fullmatch("[biuf][1248]|[US][0-9]{1,4}", code):
            raise pickle.UnpicklingError(f"an array of type {code[:20]!r}, which no file of boxes needs")
        self._code, self._order = code, "="

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        self._order = order if order in ("<", ">") else "="

    def values(self, raw: bytes | str) -> np.ndarray:
        """1-D array of the numbers or texts in ``raw``."""
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(raw, bytes):
            raise pickle.UnpicklingError(f"an array of {type(raw).__name__}")
        return np.frombuffer(raw, np.dtype(self._order + self._code))


class _Array:
    """An array, filled by its pickled state (version, shape, type, Fortran order, bytes)."""

    __slots__ = ("array",)

    def __init__(self, *_: Any):
        self.array = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a type")
        self.array = dtype.values(raw).reshape(shape, order="F" if fortran else "C")


def _scalar(dtype: _Dtype, raw: bytes | str) -> float | int | str | bytes:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("a number without a type")
    return dtype.values(raw)[0].item()


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {str(encoding)[:20]}")
    return text.encode("latin1")


_KNOWN = {
    "_reconstruct": _Stand(_Array),
    "scalar": _Stand(_scalar),
    "ndarray": _Stand(_Array),
    "dtype": _Stand(_Dtype),
}
_BYTES = _Stand(_latin1)


class _Arrays(pickle.Unpickler):
    """Plain containers, numbers, text and stand-ins of arrays of numbers; all else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in _KNOWN:
            return _KNOWN[name]
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in a pickle for Python 2
            return _BYTES
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which no file of boxes needs")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it names objects outside of it")

"""The index of a dataset: one row a sample, read in one go, enough to fetch any GOP of any video by position.

It is a safetensors file (``index.safetensors``) of plain arrays: nothing is parsed. About 70 bytes a sample and 8 bytes
a fragment: 65 MB for the 240,000 videos of Kinetics-400 in GOPs of 12 frames. It is read into memory, because a mapped
file that is cut short by somebody else kills the process that reads it (SIGBUS).
"""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..bounded_files import open_plain, parse_json
from ..errors import InputError

INDEX_NAME = "index.safetensors"
_MOST_READ = 1 << 30  # bytes; a larger index is mapped, so that the processes of a machine share it
CODECS = ("h264", "hevc", "vp9", "mjpeg", "vp8", "av1")  # the index stores the position in this tuple

_DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "I32": np.int32, "I64": np.int64}

_COLUMN_TYPES = {
    np.uint8: "codec key_text layers",
    np.uint16: "gop width height",
    np.uint32: "mp4_bytes init_bytes init_crc fragment_end fragment_crc",
    np.int32: "shard frames fps_milli label",
    np.int64: "mp4_offset fragment_row key_end",
}
_TYPES = {name: dtype for dtype, names in _COLUMN_TYPES.items() for name in names.split()}


def _names(text: str) -> tuple[str, ...]:
    names = parse_json(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("shards and classes are not lists of names")
    return tuple(names)


@dataclass(frozen=True)
class SampleIndex:
    """Columns over N samples, F fragments and S shards; all arrays are read-only.

    Attributes:
        shard: int32 (N,), row in ``shard_names``.
        mp4_offset: int64 (N,), byte offset of the sample's MP4 within its shard.
        mp4_bytes: uint32 (N,), length of the MP4.
        init_bytes: uint32 (N,), length of the MP4's header.
        init_crc: uint32 (N,), CRC-32 of the header.
        frames: int32 (N,), frame count.
        fps_milli: int32 (N,), frames per 1000 seconds (30000 = 30 fps).
        label: int32 (N,), class.
        gop: uint16 (N,), frames per GOP, which is frames per fragment.
        width, height: uint16 (N,), pixels.
        codec: uint8 (N,), position in ``CODECS``.
        fragment_row: int64 (N+1,): sample n owns ``fragment_end[fragment_row[n]:fragment_row[n + 1]]``.
        fragment_end: uint32 (F,), byte offset within the MP4 at which each fragment ends; the first one starts at
            ``init_bytes``.
        fragment_crc: uint32 (F,), CRC-32 of each fragment.
        key_end: int64 (N,), where each key ends in ``key_text``; the first starts at 0.
        key_text: uint8, all keys, UTF-8, joined.
        layers: uint8 (N,), temporal layers (``shards/layers.py``); 1 in datasets of version 1, which do not say.
        shard_names: file name of each shard, relative to the dataset's folder.
        classes: class names; ``label`` is the position in it.
    """

    shard: np.ndarray
    mp4_offset: np.ndarray
    mp4_bytes: np.ndarray
    init_bytes: np.ndarray
    init_crc: np.ndarray
    frames: np.ndarray
    fps_milli: np.ndarray
    label: np.ndarray
    gop: np.ndarray
    width: np.ndarray
    height: np.ndarray
    codec: np.ndarray
    fragment_row: np.ndarray
    fragment_end: np.ndarray
    fragment_crc: np.ndarray
    key_end: np.ndarray
    key_text: np.ndarray
    shard_names: tuple[str, ...]
    classes: tuple[str, ...]
    layers: np.ndarray | None = None

    def __post_init__(self):
        if self.layers is None:
            object.__setattr__(self, "layers", np.ones(len(self.shard), np.uint8))

    def __len__(self) -> int:
        return len(self.shard)

    def key(self, row: int) -> str:
        """The key of one sample: its name in the shard, unique in the dataset."""
        start = int(self.key_end[row - 1]) if row > 0 else 0
        return self.key_text[start : int(self.key_end[row])].tobytes().decode(errors="backslashreplace")

    def keys(self) -> list[str]:
        """All keys, in row order."""
        text, ends = self.key_text.tobytes(), self.key_end.tolist()
        return [text[a:b].decode(errors="backslashreplace") for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def save(self, path: str | os.PathLike) -> None:
        """Write the index to ``path`` (not atomic: write next to the final name and rename)."""
        header, parts, position = {}, [], 0
        names = {dtype: name for name, dtype in _DTYPES.items()}
        for name, array in self._arrays().items():
            data = np.ascontiguousarray(array)
            header[name] = {
                "dtype": names[data.dtype.type],
                "shape": list(data.shape),
                "data_offsets": [position, position + data.nbytes],
            }
            parts.append(data)
            position += data.nbytes
        header["__metadata__"] = {"shards": json.dumps(self.shard_names), "classes": json.dumps(self.classes)}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # arrays start at a multiple of 8, so that a memory map is aligned
        with open(path, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for data in parts:
                file.write(data.data)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SampleIndex":
        """Read an index.

        Args:
            path: the file, or the dataset folder that holds ``index.safetensors``.

        Raises:
            InputError: there is no such file, or it is not an index.
        """
        path = Path(path)
        path = path / INDEX_NAME if path.is_dir() else path
        try:
            with open(path, "rb", opener=open_plain) as file:
                data = _content(file)
        except (OSError, ValueError) as error:  # ValueError: it is empty
            folder = path.parent if path.name == INDEX_NAME else path
            if not folder.exists():
                raise InputError(f"{folder}: no such folder; expected a dataset made by `unstill convert`") from error
            inside = [name for name in ("shards", "train") if (folder / name / INDEX_NAME).exists()]
            hint = f"; {folder / inside[0]} is one" if inside else ""
            raise InputError(f"{path}: no index found; expected a dataset made by `unstill convert`{hint}") from error
        try:
            length = int.from_bytes(data[:8].tobytes(), "little")
            header = parse_json(data[8 : 8 + length].tobytes())
            meta = header.pop("__metadata__")
            arrays = {}
            for name, entry in header.items():
                first, last = entry["data_offsets"]
                if type(first) is not int or type(last) is not int or not 0 <= first <= last <= len(data):
                    raise ValueError(f"column {name} lies outside the file")
                raw = data[8 + length + first : 8 + length + last]
                arrays[name] = raw.view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
                if arrays[name].dtype != _TYPES[name]:
                    raise ValueError(f"column {name} is of type {entry['dtype']}")
            return cls(**arrays, shard_names=_names(meta["shards"]), classes=_names(meta["classes"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
            raise InputError(f"{path}: not an index of this version ({error}); run `unstill convert` again") from error

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        del arrays["shard_names"], arrays["classes"]
        # 8-byte columns first: every column then starts at a multiple of its own item size
        return dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))


def _content(file: BinaryIO) -> np.ndarray:
    """uint8, all bytes of an open file. Raises ValueError where there are none."""
    size = os.fstat(file.fileno()).st_size
    if size > _MOST_READ:
        return np.memmap(file, dtype=np.uint8, mode="r")
    data = np.fromfile(file, np.uint8, size)
    if not size or len(data) != size:
        raise ValueError("an empty file, or one that is being written")
    data.flags.writeable = False
    return data

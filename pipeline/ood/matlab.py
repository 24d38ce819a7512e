"""Numeric arrays out of MATLAB 5 files (.mat): enough for JHMDB's puppet masks.

Why not ``scipy.io.loadmat``: masks may be untrusted, and of 6,000 small files with random changes it ended the
process with a segmentation fault on 39 (scipy 1.17.1); this reader reads them or raises ValueError.

Format: "MAT-File Format", The MathWorks. 128 bytes of header, then elements [type u32, bytes u32, data, padding to 8],
or [type u16, bytes u16, data u32] when the data fit in four bytes; type 15 is a zlib stream of one element, type 14 an
array of sub-elements: flags, dimensions, name, values.
"""

import math
import struct
import zlib
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from ..bounded_files import read_bounded

_COMPRESSED, _ARRAY = 15, 14
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MOST_BYTES = 1 << 30  # of all decompressed arrays: a small file must not fill the memory


def read_mat(path: Path, names: Container[str] | None = None) -> dict[str, np.ndarray]:
    """The numeric arrays of a .mat file by name, in MATLAB's shapes; others (cells, text, structs) are left out.

    Args:
        path: the file.
        names: keep only these arrays; None keeps all.

    Raises:
        ValueError: not a MATLAB 5 file, a broken one, or more than 1 GiB of arrays in it.
        InputError, OSError: not a plain file, or not readable.
    """
    data = read_bounded(path, _MOST_BYTES)
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a MATLAB 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    found, left = {}, _MOST_BYTES
    for kind, element in _elements(data[128:], order):
        if kind == _COMPRESSED:
            stream = zlib.decompressobj()
            try:
                element = stream.decompress(element, left)
            except zlib.error as error:
                raise ValueError(f"broken zlib stream ({error})") from None
            if stream.unconsumed_tail:
                raise ValueError(f"arrays of more than {_MOST_BYTES} bytes")
            left = max(1, left - len(element))
            kind, element = next(_elements(element, order), (0, b""))
        if kind == _ARRAY and (named := _array(element, order, names)) is not None:
            found[named[0]] = named[1]
            if sum(array.nbytes for array in found.values()) > _MOST_BYTES:
                raise ValueError(f"arrays of more than {_MOST_BYTES} bytes")
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:  # the small form
            kind, size, begin, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            begin = at + 8
            # compressed elements are not padded
            following = begin + size + (-size % 8 if kind != _COMPRESSED else 0)
        if begin + size > len(data):
            raise ValueError("the file ends within an element")
        yield kind, data[begin : begin + size]
        at = following


def _array(element: bytes, order: str, names: Container[str] | None) -> tuple[str, np.ndarray] | None:
    parts = list(_elements(element, order))
    if len(parts) < 4:
        return None
    flags, shape, name, (kind, values) = parts[0][1], parts[1][1], parts[2][1], parts[3]
    if len(flags) < 4:
        raise ValueError("an array without flags")
    array_class = struct.unpack_from(order + "I", flags)[0] & 0xFF
    if array_class not in _NUMERIC or kind not in _TYPES:
        return None
    title = name.decode("ascii", "replace")
    if names is not None and title not in names:
        return None
    dimensions = np.frombuffer(shape, order + "i4").tolist()
    found = np.frombuffer(values, order + _TYPES[kind])
    if math.prod(dimensions) != len(found):
        raise ValueError(f"{len(found)} values for an array of {dimensions}")
    if len(found) * np.dtype(_NUMERIC[array_class]).itemsize > _MOST_BYTES:  # stored small, declared as double
        raise ValueError(f"an array of more than {_MOST_BYTES} bytes")
    return title, found.astype(_NUMERIC[array_class]).reshape(dimensions, order="F")

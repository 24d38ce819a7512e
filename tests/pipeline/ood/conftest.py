"""Files of datasets, made by hand."""

import struct
import zlib

import pytest


@pytest.fixture
def mat_file():
    """Makes the bytes of a MATLAB 5 file."""

    def mat_file(name, array, compress=True):
        """A MATLAB 5 file of one uint8 array."""

        def element(kind, data):
            return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

        body = element(6, struct.pack("<II", 9, 0))
        body += element(5, struct.pack(f"<{array.ndim}i", *array.shape))
        small = struct.pack("<HH", 1, len(name)) + name.encode().ljust(4, b"\0") if len(name) <= 4 else None
        body += small or element(1, name.encode())
        body += element(2, array.tobytes(order="F"))
        matrix = element(14, body)
        if compress:
            packed = zlib.compress(matrix)
            matrix = struct.pack("<II", 15, len(packed)) + packed
        return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM" + matrix

    return mat_file

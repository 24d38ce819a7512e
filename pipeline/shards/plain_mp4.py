"""Chosen frames of a fragmented MP4 as an ordinary one: ``ftyp``, ``moov`` with a sample table, ``mdat``.

Any decoder reads it without knowing fragments. Frames that are not wanted and that no other refers to are left out, so
they cost nothing to decode: in a layered video no frame refers to an odd one (``shards/layers.py``).
"""

import itertools
import struct

import numpy as np

from .sample_table import Samples, TrackHeader

_BOX = struct.Struct(">I4s")


def needed_samples(samples: Samples, wanted: list[int], layers: int) -> list[int]:
    """Which samples have to be decoded to see some frames.

    Args:
        samples: whole GOPs in decode order; every wanted frame is among them.
        wanted: frame numbers of the video.
        layers: 1, every frame is needed by the next one; 2, odd frames are needed by no other.

    Returns:
        Positions in ``samples``, in decode order.

    Raises:
        ValueError: a wanted frame is not there.
    """
    frames, asked = samples.frame, set(wanted)
    if layers == 1:
        last = max(asked)
        kept = [k for k, frame in enumerate(frames) if frame <= last]
    else:
        end = max((k for k, frame in enumerate(frames) if frame in asked), default=-1) + 1
        kept = [k for k, frame in enumerate(frames[:end]) if frame % 2 == 0 or frame in asked]
    if not asked <= {frames[k] for k in kept}:
        raise ValueError("its sample table lacks frames that the index names")
    return kept


def plain_mp4(header: TrackHeader, data: np.ndarray, samples: Samples, kept: list[int]) -> tuple[np.ndarray, list[int]]:
    """An ordinary MP4 of some samples.

    Args:
        header: of the fragmented MP4.
        data: uint8, the buffer that ``samples.offset`` points into.
        samples: in decode order.
        kept: which of them, ascending, from a key frame on, decodable without the others.

    Returns:
        ``(mp4, frames)``: uint8 (n,); and the number in the video of each of its frames, in the order shown. Frames
        follow each other at a constant rate from time 0 on, or from one frame later when they are not decoded in the
        order shown: no time is negative, so that there is no edit list, and DALI does not take a frame for an empty
        place.
    """
    number = [samples.frame[k] for k in kept]
    size = [samples.size[k] for k in kept]
    frames = sorted(number)
    ahead = [] if frames == number else _composition_offsets(number, frames)
    keys = [k for k, row in enumerate(kept, 1) if samples.key[row]]
    head = _head(header, samples.tick * _step(frames), size, keys, ahead)
    out = np.empty(len(head) + sum(size), np.uint8)
    out[: len(head)] = np.frombuffer(head, np.uint8)
    position = len(head)
    for begin, end in _runs([samples.offset[k] for k in kept], size):
        out[position : position + end - begin] = data[begin:end]
        position += end - begin
    return out, frames


def _step(frames: list[int]) -> int:
    """Video frames from one kept frame to the next, where that is constant, so that the slice plays at its speed."""
    steps = {b - a for a, b in itertools.pairwise(frames)}
    return steps.pop() if len(steps) == 1 else 1


def _composition_offsets(number: list[int], frames: list[int]) -> list[int]:
    """How many frames later than decoded each sample is shown, shifted so that none is shown before it is decoded."""
    place = {frame: k for k, frame in enumerate(frames)}
    later = [place[frame] - k for k, frame in enumerate(number)]
    return [shift - min(later) for shift in later]


def _runs(offsets: list[int], sizes: list[int]) -> list[tuple[int, int]]:
    """(begin, end) of the bytes to copy, neighbours joined."""
    runs: list[tuple[int, int]] = []
    for offset, size in zip(offsets, sizes, strict=True):
        if runs and runs[-1][1] == offset:
            runs[-1] = (runs[-1][0], offset + size)
        else:
            runs.append((offset, offset + size))
    return runs


def _head(header: TrackHeader, duration: int, size: list[int], keys: list[int], ahead: list[int]) -> bytes:
    """Everything before the content of ``mdat``."""
    count, timescale = len(size), header.timescale
    length = (count + max(ahead, default=0)) * duration
    tables = [
        header.description,
        _box(b"stts", struct.pack(">4I", 0, 1, count, duration)),
        _box(b"stss", struct.pack(f">{2 + len(keys)}I", 0, len(keys), *keys)),
        _box(b"stsc", struct.pack(">5I", 0, 1, 1, count, 1)),
        _box(b"stsz", struct.pack(f">{3 + count}I", 0, 0, count, *size)),
    ]
    if ahead:
        pairs = [value for shift in ahead for value in (1, shift * duration)]
        tables.append(_box(b"ctts", struct.pack(f">{2 + 2 * count}I", 0, count, *pairs)))
    mvhd = _box(
        b"mvhd", struct.pack(">5I", 0, 0, 0, timescale, length), _RATE_AND_VOLUME, _MATRIX, bytes(24), b"\0\0\0\2"
    )
    shown = struct.pack(">II", header.width << 16, header.height << 16)
    tkhd = _box(b"tkhd", struct.pack(">6I", 3, 0, 0, 1, 0, length), bytes(16), _MATRIX, shown)
    mdhd = _box(b"mdhd", struct.pack(">5I2H", 0, 0, 0, timescale, length, 0x55C4, 0))

    def moov(first_byte: int) -> bytes:
        stbl = _box(b"stbl", *tables, _box(b"stco", struct.pack(">3I", 0, 1, first_byte)))
        return _box(b"moov", mvhd, _box(b"trak", tkhd, _box(b"mdia", mdhd, _HDLR, _box(b"minf", _VMHD, _DINF, stbl))))

    begin = len(_FTYP) + len(moov(0)) + _BOX.size
    return _FTYP + moov(begin) + _BOX.pack(_BOX.size + sum(size), b"mdat")


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _BOX.pack(_BOX.size + len(body), kind) + body


_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation, no scaling
_RATE_AND_VOLUME = struct.pack(">IH10x", 0x10000, 0x100)
_FTYP = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
_HDLR = _box(b"hdlr", struct.pack(">II4s12x", 0, 0, b"vide"), b"video\0")
_VMHD = _box(b"vmhd", struct.pack(">I8x", 1))
_DINF = _box(b"dinf", _box(b"dref", struct.pack(">II", 0, 1), _box(b"url ", struct.pack(">I", 1))))

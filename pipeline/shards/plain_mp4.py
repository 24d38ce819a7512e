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


def joined_mp4(
    header: TrackHeader, contents: list[np.ndarray], sizes: list[int], shown: list[int], keys: list[int]
) -> np.ndarray:
    """Several slices, one after the other, as one ordinary MP4.

    Args:
        header: of all of them; their decoder's parameters must be the same bytes.
        contents: uint8 (n,) each, samples in decode order.
        sizes: bytes of each sample of all of them.
        shown: the place of each sample in the order shown, from 0; within a slice there is no place of another one.
        keys: samples that start a slice, from 1.

    Returns:
        uint8 (n,); a frame lasts one tick of the track's clock, from time 0 on, see ``plain_mp4``.
    """
    ahead = [] if all(a < b for a, b in itertools.pairwise(shown)) else _composition_offsets(shown, sorted(shown))
    head = np.frombuffer(_head(header, 1, sizes, keys, ahead), np.uint8)
    return np.concatenate([head, *contents])


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
    count = len(size)
    length = (count + max(ahead, default=0)) * duration
    clock, shown = struct.pack(">II", header.timescale, length), struct.pack(">II", header.width, header.height)
    tables = [
        header.description,
        struct.pack(">I4s4I", 24, b"stts", 0, 1, count, duration),
        struct.pack(f">I4s{2 + len(keys)}I", 16 + 4 * len(keys), b"stss", 0, len(keys), *keys),
        struct.pack(">I4s5I", 28, b"stsc", 0, 1, 1, count, 1),
        struct.pack(f">I4s{3 + count}I", 20 + 4 * count, b"stsz", 0, 0, count, *size),
    ]
    if ahead:
        pairs = [value for shift in ahead for value in (1, shift * duration)]
        tables.append(struct.pack(f">I4s{2 + 2 * count}I", 16 + 8 * count, b"ctts", 0, count, *pairs))
    stbl = 8 + sum(map(len, tables)) + 20  # with stco
    minf = 8 + len(_VMHD) + len(_DINF) + stbl
    mdia = 8 + 32 + len(_HDLR) + minf  # with mdhd
    trak = 8 + 92 + mdia  # with tkhd
    moov = 8 + 108 + trak  # with mvhd
    begin = len(_FTYP) + moov + 8
    return b"".join(
        (
            *(_FTYP, _BOX.pack(moov, b"moov"), _MVHD, clock, _MVHD_END),
            *(_BOX.pack(trak, b"trak"), _TKHD, clock[4:], _TKHD_END, shown),
            *(_BOX.pack(mdia, b"mdia"), _MDHD, clock, _MDHD_END, _HDLR),
            *(_BOX.pack(minf, b"minf"), _VMHD, _DINF, _BOX.pack(stbl, b"stbl"), *tables),
            struct.pack(">I4s3I", 20, b"stco", 0, 1, begin),
            _BOX.pack(8 + sum(size), b"mdat"),
        )
    )


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _BOX.pack(_BOX.size + len(body), kind) + body


# What is the same in every slice. The boxes that carry times are split where the times lie.
_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation, no scaling
_FTYP = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
_MVHD = struct.pack(">I4s12x", 108, b"mvhd")
_MVHD_END = struct.pack(">IH10x", 0x10000, 0x100) + _MATRIX + struct.pack(">24xI", 2)  # rate, volume; next track
_TKHD = struct.pack(">I4s6I", 92, b"tkhd", 3, 0, 0, 1, 0, 0)[:-4]
_TKHD_END = bytes(16) + _MATRIX
_MDHD = struct.pack(">I4s12x", 32, b"mdhd")
_MDHD_END = struct.pack(">2H", 0x55C4, 0)  # no language
_HDLR = _box(b"hdlr", struct.pack(">II4s12x", 0, 0, b"vide"), b"video\0")
_VMHD = _box(b"vmhd", struct.pack(">I8x", 1))
_DINF = _box(b"dinf", _box(b"dref", struct.pack(">II", 0, 1), _box(b"url ", struct.pack(">I", 1))))

"""Where each frame of a fragmented MP4 lies: its samples, in the order they are decoded, with the frame each one shows.

Sizes are given per sample in ``trun``, or, as FFmpeg does for a fragment of one frame, once in ``tfhd``.
"""

import struct
from dataclasses import dataclass

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
# optional fields of a trun's entries, in their order: duration, size, flags, composition offset
_DURATION, _SIZE, _FLAGS, _COMPOSITION = 0x100, 0x200, 0x400, 0x800
_MAX_SAMPLES = 100_000  # of one fragment; a GOP has at most 600 frames


@dataclass(frozen=True)
class TrackHeader:
    """What the header of an MP4 with one video track says.

    Attributes:
        description: the ``stsd`` box, which carries the decoder's parameters.
        timescale: ticks per second.
        width, height: pixels, as shown.
    """

    description: bytes
    timescale: int
    width: int
    height: int


@dataclass
class Samples:
    """Samples in decode order, one list a column.

    Attributes:
        frame: number of the frame in the video, in the order shown.
        offset: first byte, in the buffer that was parsed.
        size: bytes.
        key: starts a GOP.
        tick: duration of one frame in units of the track's clock; 0 before the first fragment.
    """

    frame: list[int]
    offset: list[int]
    size: list[int]
    key: list[bool]
    tick: int = 0


def parse_header(data: bytes | memoryview) -> TrackHeader:
    """Read the header (everything before the first fragment) of an MP4 with one track.

    Raises:
        ValueError: it is no such header.
    """
    description, timescale, width, height = None, 0, 0, 0
    pending = [(0, len(data))]
    while pending:
        for kind, start, end in _boxes(data, *pending.pop()):
            if kind in _CONTAINERS:
                pending.append((start, end))
            elif kind == b"stsd":
                description = bytes(data[start - 8 : end])
            elif kind == b"mdhd":
                (timescale,) = _unpack(">I", data, start + (20 if data[start] else 12), end)
            elif kind == b"tkhd":
                width, height = (value >> 16 for value in _unpack(">II", data, end - 8, end))
    if description is None or not timescale:
        raise ValueError("the MP4's header has no track")
    return TrackHeader(description, timescale, width, height)


def parse_fragments(data: bytes | memoryview, begin: int, ends: list[int], first_frame: int, gop: int) -> Samples:
    """The samples of consecutive fragments.

    Args:
        data: holds the fragments.
        begin: where the first one starts.
        ends: where each one ends.
        first_frame: number of the first fragment's first frame in the video.
        gop: frames per fragment; the last one may have fewer.

    Raises:
        ValueError: a fragment is not one of a single constant-rate track, or its samples lie outside it.
    """
    samples = Samples([], [], [], [])
    for end in ends:
        _add_fragment(samples, data, begin, end, first_frame)
        begin, first_frame = end, first_frame + gop
    return samples


def _add_fragment(samples: Samples, data: bytes | memoryview, begin: int, end: int, first_frame: int) -> None:
    size, kind = _unpack(">I4s", data, begin, end)
    if kind != b"moof" or begin + size > end:
        raise ValueError(f"no fragment at byte {begin}")
    usual_tick = usual_size = 0
    for kind, start, stop in _boxes(data, begin + 8, begin + size):
        if kind != b"traf":
            continue
        for inner, at, until in _boxes(data, start, stop):
            if inner == b"tfhd":
                usual_tick, usual_size = _defaults(data, at, until)
            elif inner == b"trun":
                tick, sizes, shown, offset = _run(data, at, until, usual_tick, usual_size)
                return _append(samples, tick, sizes, shown, begin + offset, end, first_frame)
    raise ValueError(f"the fragment at byte {begin} has no samples")


def _defaults(data: bytes | memoryview, at: int, until: int) -> tuple[int, int]:
    """(duration, size) of a sample, as far as ``tfhd`` gives them for all."""
    flags, _ = _unpack(">II", data, at, until)
    if flags & 1:
        raise ValueError("a fragment whose data lie at an absolute offset")
    place, values = at + 8 + (4 if flags & 2 else 0), []
    for bit in (8, 16):
        values.append(_unpack(">I", data, place, until)[0] if flags & bit else 0)
        place += 4 if flags & bit else 0
    return values[0], values[1]


def _run(data: bytes | memoryview, at: int, until: int, tick: int, size: int) -> tuple[int, list, list, int]:
    """(duration of a frame, sizes, order of showing, offset from the moof) of a ``trun`` box."""
    head, count = _unpack(">II", data, at, until)
    flags, place = head & 0xFFFFFF, at + 8
    if not flags & 1 or not 0 < count <= _MAX_SAMPLES:
        raise ValueError(f"a fragment of {count} samples without an offset of their data, or with too many")
    (offset,) = _unpack(">i", data, place, until)
    place += 8 if flags & 4 else 4
    columns = [bit for bit in (_DURATION, _SIZE, _FLAGS, _COMPOSITION) if flags & bit]
    table = _unpack(f">{count * len(columns)}I", data, place, until)
    column = {bit: table[k :: len(columns)] for k, bit in enumerate(columns)}
    tick = column[_DURATION][0] if _DURATION in column else tick
    sizes = list(column.get(_SIZE, (size,) * count))
    if not tick or 0 in sizes:
        raise ValueError("a fragment with frames of no duration or no size")
    if _COMPOSITION not in column:
        return tick, sizes, list(range(count)), offset
    shifts = [s - (1 << 32) if s >> 31 else s for s in column[_COMPOSITION]]
    times = [k + s / tick for k, s in enumerate(shifts)]
    least = min(times)
    shown = [round(time - least) for time in times]
    return tick, sizes, shown, offset


def _append(samples: Samples, tick: int, sizes: list, shown: list, position: int, end: int, first_frame: int) -> None:
    if sorted(shown) != list(range(len(sizes))) or shown[0] or (samples.tick and tick != samples.tick):
        raise ValueError("a fragment whose frames are not shown one after the other at a constant rate")
    if position < 0 or position + sum(sizes) > end:
        raise ValueError("a fragment whose samples lie outside it")
    samples.tick = tick
    samples.frame += [first_frame + number for number in shown]
    samples.size += sizes
    samples.key += [True, *[False] * (len(sizes) - 1)]
    for size in sizes:
        samples.offset.append(position)
        position += size


def _boxes(data: bytes | memoryview, position: int, end: int):
    """(kind, start of its content, end) of each box."""
    while position + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, position)
        if size < 8 or position + size > end:
            raise ValueError(f"MP4 box {kind!r} at byte {position} claims {size} bytes")
        yield kind, position + 8, position + size
        position += size


def _unpack(form: str, data: bytes | memoryview, at: int, end: int) -> tuple:
    if at < 0 or at + struct.calcsize(form) > end or end > len(data):
        raise ValueError(f"an MP4 box ends within its fields at byte {at}")
    return struct.unpack_from(form, data, at)

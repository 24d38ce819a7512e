"""Where each frame of a fragmented MP4 lies: its samples, in the order they are decoded, with the frame each one shows.

Sizes are given per sample in ``trun``, or, as FFmpeg does for a fragment of one frame, once in ``tfhd``.
"""

import functools
import struct
from dataclasses import dataclass

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
# optional fields of a trun's entries, in their order: duration, size, flags, composition offset
_DURATION, _SIZE, _FLAGS, _COMPOSITION = 0x100, 0x200, 0x400, 0x800
_MAX_SAMPLES = 100_000  # of one fragment; a GOP has at most 600 frames
_HEAD, _WORD, _TRUN = struct.Struct(">I4s"), struct.Struct(">I"), struct.Struct(">IIi")


@dataclass(frozen=True)
class TrackHeader:
    """What the header of an MP4 with one video track says.

    Attributes:
        description: the ``stsd`` box, which carries the decoder's parameters.
        timescale: ticks per second.
        width, height: pixels as shown, 16.16 fixed point.
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
                width, height = _unpack(">II", data, end - 8, end)
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
    try:
        for end in ends:
            _add_fragment(samples, data, begin, end, first_frame)
            begin, first_frame = end, first_frame + gop
    except struct.error as error:
        raise ValueError(f"an MP4 box ends within its fields ({error})") from error
    return samples


def _add_fragment(samples: Samples, data: bytes | memoryview, begin: int, end: int, first_frame: int) -> None:
    """Called four times for every clip that is read: plain loops, few calls."""
    size, kind = _HEAD.unpack_from(data, begin)
    position, stop = begin + 8, begin + size
    if kind != b"moof" or stop > end:
        raise ValueError(f"no fragment at byte {begin}")
    tick = usual = 0
    while position + 8 <= stop:
        length, kind = _HEAD.unpack_from(data, position)
        if length < 8 or position + length > stop:
            raise ValueError(f"MP4 box {kind!r} at byte {position} claims {length} bytes")
        if kind == b"traf":
            position += 8  # its boxes follow
            continue
        if kind == b"tfhd":
            tick, usual = _defaults(data, position + 8)
        elif kind == b"trun":
            _add_run(samples, data, (position + 8, position + length), tick, usual, (begin, end), first_frame)
            return
        position += length
    raise ValueError(f"the fragment at byte {begin} has no samples")


def _defaults(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """(duration, size) of a sample, as far as ``tfhd`` gives them for all."""
    (flags,) = _WORD.unpack_from(data, at)
    if flags & 1:
        raise ValueError("a fragment whose data lie at an absolute offset")
    place = at + (12 if flags & 2 else 8)
    tick = _WORD.unpack_from(data, place)[0] if flags & 8 else 0
    size = _WORD.unpack_from(data, place + (4 if flags & 8 else 0))[0] if flags & 16 else 0
    return tick, size


def _add_run(
    samples: Samples,
    data: bytes | memoryview,
    box: tuple[int, int],
    tick: int,
    usual: int,
    fragment: tuple[int, int],
    first_frame: int,
) -> None:
    """Add the samples of a ``trun`` box, whose content is ``box``, in a fragment that lies at ``fragment``."""
    at, until = box
    head, count, offset = _TRUN.unpack_from(data, at)
    columns = [bit for bit in (_DURATION, _SIZE, _FLAGS, _COMPOSITION) if head & bit]
    place = at + (16 if head & 4 else 12)
    if not head & 1 or not 0 < count <= _MAX_SAMPLES or place + 4 * count * len(columns) > until:
        raise ValueError(f"a fragment of {count} samples without an offset of their data, or without room for them")
    table = struct.unpack_from(f">{count * len(columns)}I", data, place)
    column = {bit: table[k :: len(columns)] for k, bit in enumerate(columns)}
    tick = column[_DURATION][0] if _DURATION in column else tick
    sizes = column[_SIZE] if _SIZE in column else (usual,) * count
    position = fragment[0] + offset
    if not tick or 0 in sizes or samples.tick not in (0, tick):
        raise ValueError("a fragment with frames of no duration or no size, or at another rate than the one before")
    if offset < 0 or position + sum(sizes) > fragment[1]:
        raise ValueError("a fragment whose samples lie outside it")
    shown = range(count) if _COMPOSITION not in column else _order_shown(column[_COMPOSITION], tick)
    samples.tick = tick
    samples.frame += [first_frame + number for number in shown]
    samples.size += sizes
    samples.key += [True, *[False] * (count - 1)]
    for size in sizes:
        samples.offset.append(position)
        position += size


@functools.lru_cache(maxsize=32)
def _order_shown(shifts: tuple[int, ...], tick: int) -> tuple[int, ...]:
    """The place of each sample of a fragment in the order shown, from the composition offsets, mostly the same ones."""
    times = [k + (s - (1 << 32) if s >> 31 else s) / tick for k, s in enumerate(shifts)]
    least = min(times)
    shown = [round(time - least) for time in times]
    if shown[0] or sorted(shown) != list(range(len(shown))):
        raise ValueError("a fragment whose frames are not shown one after the other at a constant rate")
    return tuple(shown)


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

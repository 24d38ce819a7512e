"""Do container and stream agree on the size of a picture? A decoder that believes one of them writes past its buffer.

DALI's CPU decoder takes the size of its buffers from the container (the sample entry), the pictures that fill them come
from the stream, and the index steers what is cut out. So all three must say the same: the sample entry, every parameter
set of H.264 and HEVC, and every frame header of VP9 (``vp9_frames.py``), whose frames may each have a size of their
own. 8-bit 4:2:0 is checked alike. Of VP8, AV1 and JPEG, which `unstill convert` does not write, only the container is
compared.

Sources: ISO/IEC 14496-12 and -15 (sample entries), ITU-T H.264 7.3.2.1 and H.265 7.3.2.2 (sequence parameter sets).
"""

import struct
from collections.abc import Iterable

from .bit_reader import BitReader, Buffer
from .vp9_frames import frames_of, read_header

_CODEC = {b"avc1": "h264", b"hvc1": "hevc", b"hev1": "hevc", b"vp09": "vp9"}
_ENTRY_BYTES = 86  # of a visual sample entry before its boxes
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


def check_size(description: bytes, samples: Iterable[Buffer], size: tuple[int, int]) -> None:
    """Compare the size of a video's pictures with what is said elsewhere.

    Args:
        description: the ``stsd`` box.
        samples: the content of each sample to look at; whole GOPs.
        size: width and height that they must have.

    Raises:
        ValueError: says which two do not agree, or that a header is not understood.
    """
    try:
        kind, body = _entry(description, size)
        codec = _CODEC.get(kind)
        if codec == "vp9":
            for sample in samples:
                for frame in frames_of(sample):
                    _check_vp9(frame, size)
        elif codec is not None:
            _check_parameter_sets(body, samples, size, codec)
    except (struct.error, IndexError) as error:
        raise ValueError(f"a header of its stream ends too early ({error})") from None


def _entry(description: bytes, size: tuple[int, int]) -> tuple[bytes, bytes]:
    """Kind and boxes of the one sample entry."""
    length, _, _, count, entry, kind = struct.unpack_from(">I4sIII4s", description)
    if count != 1 or length != len(description) or entry != length - 16:
        raise ValueError("its container has not exactly one sample entry")
    found = struct.unpack_from(">HH", description, 16 + 32)
    if found != size:
        raise ValueError(f"its container says {found[0]}x{found[1]}, the index {size[0]}x{size[1]}")
    return kind, description[16 + _ENTRY_BYTES :]


def _compare(what: str, found: tuple[int, int], size: tuple[int, int]) -> None:
    if found != size:
        raise ValueError(f"{what} of its stream says {found[0]}x{found[1]}, the index {size[0]}x{size[1]}")


def _check_vp9(frame: Buffer, size: tuple[int, int]) -> None:
    header = read_header(frame)
    if header is not None and header.size is not None:
        _compare("a frame", header.size, size)


def _check_parameter_sets(boxes: bytes, samples: Iterable[Buffer], size: tuple[int, int], codec: str) -> None:
    """Those of the container, and that the samples bring no others."""
    h264 = codec == "h264"
    sets, prefix = _avc_sets(boxes) if h264 else _hevc_sets(boxes)
    if not sets:
        raise ValueError("its container has no sequence parameter set")
    for unit in sets:
        _compare("a parameter set", _avc_size(unit) if h264 else _hevc_size(unit), size)
    for sample in samples:
        at = 0
        while at < len(sample):
            length = int.from_bytes(sample[at : at + prefix], "big")
            at += prefix
            if length == 0 or at + length > len(sample):
                raise ValueError("a unit of its stream is longer than its sample")
            kind = sample[at] & 31 if h264 else sample[at] >> 1 & 63
            if kind in ((7, 15) if h264 else (33,)) and bytes(sample[at : at + length]) not in sets:
                raise ValueError("its stream brings a parameter set that its container does not have")
            at += length


def _box(boxes: bytes, wanted: bytes) -> bytes:
    at = 0
    while at + 8 <= len(boxes):
        length, kind = struct.unpack_from(">I4s", boxes, at)
        if length < 8 or at + length > len(boxes):
            break
        if kind == wanted:
            return boxes[at + 8 : at + length]
        at += length
    raise ValueError(f"its container has no {wanted.decode()} box")


def _unit(data: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">H", data, at)
    if at + 2 + length > len(data):
        raise ValueError("a parameter set of its container ends too early")
    return data[at + 2 : at + 2 + length], at + 2 + length


def _avc_sets(boxes: bytes) -> tuple[list[bytes], int]:
    data = _box(boxes, b"avcC")
    sets, at = [], 6
    for _ in range(data[5] & 31):
        unit, at = _unit(data, at)
        sets.append(unit)
    return sets, (data[4] & 3) + 1


def _hevc_sets(boxes: bytes) -> tuple[list[bytes], int]:
    data = _box(boxes, b"hvcC")
    sets, at = [], 23
    for _ in range(data[22]):
        kind, count = data[at] & 63, int.from_bytes(data[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            unit, at = _unit(data, at)
            if kind == 33:
                sets.append(unit)
    return sets, (data[21] & 3) + 1


def _payload(unit: bytes, header: int) -> bytes:
    """The unit's bits without its header and without the bytes that prevent a start code."""
    return unit[header : header + 1024].replace(b"\0\0\3", b"\0\0")


def _plain(chroma: int, luma_depth: int, chroma_depth: int) -> None:
    if (chroma, luma_depth, chroma_depth) != (1, 0, 0):
        raise ValueError("its stream is not 8-bit 4:2:0")


def _avc_size(unit: bytes) -> tuple[int, int]:
    bits = BitReader(_payload(unit, 1))
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        bits.take(1 if chroma == 3 else 0)
        _plain(chroma, bits.golomb(), bits.golomb())
        bits.take(1)
        if bits.take(1):
            raise ValueError("its stream has scaling matrices, which our encoders do not write")
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        for _ in range(2):
            bits.golomb()
        for _ in range(min(bits.golomb(), 256)):
            bits.golomb()
    bits.golomb()
    bits.take(1)
    columns, rows = bits.golomb() + 1, bits.golomb() + 1
    progressive = bits.take(1)
    bits.take(1 if progressive else 2)
    left, right, top, bottom = [bits.golomb() for _ in range(4)] if bits.take(1) else [0] * 4
    fields = 2 - progressive
    return 16 * columns - 2 * (left + right), fields * (16 * rows - 2 * (top + bottom))


def _hevc_size(unit: bytes) -> tuple[int, int]:
    bits = BitReader(_payload(unit, 2))
    bits.take(4)
    below = bits.take(3)
    bits.take(1 + 96)
    present = [(bits.take(1), bits.take(1)) for _ in range(below)]
    bits.take(2 * (8 - below) if below else 0)
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.golomb()
    chroma = bits.golomb()
    bits.take(1 if chroma == 3 else 0)
    width, height = bits.golomb(), bits.golomb()
    left, right, top, bottom = [bits.golomb() for _ in range(4)] if bits.take(1) else [0] * 4
    _plain(chroma, bits.golomb(), bits.golomb())
    return width - 2 * (left + right), height - 2 * (top + bottom)

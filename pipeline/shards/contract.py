"""The contract every MP4 in a shard fulfils, checked by decoding all of it.

Used on each video right after it was encoded, on candidates for ``codec="copy"``, and by ``unstill verify``.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.container
import av.error
import numpy as np

from ..pyav import LENIENT
from .fragments import fragment_table
from .plain_mp4 import plain_mp4
from .quarantine import BadVideo
from .sample_table import parse_fragments, parse_header
from .stream_size import check_size
from .video_format import BLOCK
from .vp9_frames import without_filter


@dataclass(frozen=True)
class VideoFacts:
    """What a conforming MP4 turned out to be.

    Attributes:
        codec: decoder name: h264, hevc or vp9.
        frames: number of frames.
        fps: exact constant rate.
        width, height: pixels.
        gop: frames per closed GOP, which is frames per fragment.
        layers: 1; or 2, when no frame refers to an odd one.
        init_bytes: length of the header.
        offsets: int64 (K+1,), fragment k is ``mp4[offsets[k]:offsets[k + 1]]``.
    """

    codec: str
    frames: int
    fps: Fraction
    width: int
    height: int
    gop: int
    layers: int
    init_bytes: int
    offsets: np.ndarray


def check_video(
    mp4: bytes,
    *,
    gop: int,
    fps: Fraction | None = None,
    frames: int | None = None,
    layers: int = 1,
    compare_layers: bool = True,
) -> VideoFacts:
    """Decode every frame of ``mp4`` and check it against the contract.

    The contract: fragmented MP4, one fragment per GOP; one video stream and no other; 8-bit 4:2:0; square pixels; both
    sides multiples of 16 throughout; frame k is shown at exactly k / fps; key frames at k * gop and nowhere else. With
    one layer no frame arrives out of order. With two, all times may be one frame later, and no frame refers to an odd
    one: odd frames of H.264 and HEVC are marked so (except the last of each GOP, which has no successor), and the even
    frames alone, as a reader cuts them out, decode to exactly the pixels that they have in the whole video.

    Args:
        mp4: the whole file.
        gop: frames per GOP; even when there are two layers.
        fps: the constant rate expected; None takes what the first two frames say.
        frames: the frame count expected; None accepts any above zero.
        layers: 1 or 2, see ``shards/layers.py``.
        compare_layers: compare those pixels. Without it the marks are enough where there are any; VP9 has none. Where
            no pixel is compared, the filter between blocks, which reads nothing of the file, is left out.

    Raises:
        BadVideo: reason ``output``, with the first thing that is wrong.
    """
    try:
        init_bytes, offsets = fragment_table(mp4)
    except ValueError as error:
        raise BadVideo("output", str(error)) from error
    decoded: list[tuple[int, bool, tuple]] = []  # time in ticks of the container's clock
    try:
        with av.open(io.BytesIO(mp4), format="mp4", **LENIENT) as container:
            _check_streams(container)
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            codec, tick = stream.codec_context.codec.canonical_name, stream.time_base or Fraction(1)
            packets = _Packets(gop, layers, codec)
            compared = layers == 2 and (compare_layers or codec not in ("h264", "hevc"))
            unfiltered = not compare_layers and not compared
            if unfiltered:  # a quarter of the time of H.264
                stream.codec_context.options = {"skip_loop_filter": "all"}
            even = _even_frames(mp4, init_bytes, offsets, gop) if compared else None
            for packet in container.demux(stream):
                packets.check(packet)
                if unfiltered and codec == "vp9" and packet.size:
                    packet.update(without_filter(memoryview(packet)))
                for frame in packet.decode():
                    if frame.is_corrupt or frame.pts is None:
                        raise BadVideo("output", f"frame {len(decoded)} decodes as damaged")
                    if even is not None and len(decoded) % 2 == 0:
                        _check_even_frame(len(decoded), frame, next(even, None))
                    shape = (frame.width, frame.height, frame.format.name)
                    decoded.append((frame.pts, frame.key_frame, shape))
            if fps is None:
                fps = Fraction(stream.average_rate or 1)
                if len(decoded) > 1:
                    fps = 1 / ((decoded[1][0] - decoded[0][0]) * tick)
    except (av.error.FFmpegError, ZeroDivisionError, TypeError) as error:
        raise BadVideo("output", f"does not decode: {error}") from error
    except ValueError as error:  # of a header of VP9
        raise BadVideo("output", str(error)) from error
    _check_frames(decoded, tick, packets.count, gop, fps, frames, layers)
    packets.check_marks()
    if packets.key_frames != list(range(0, packets.count, gop)):
        raise BadVideo("output", f"key frames at {packets.key_frames[:8]}..., expected every {gop} frames")
    if len(offsets) - 1 != -(-len(decoded) // gop):
        raise BadVideo("output", f"{len(offsets) - 1} fragments for {len(decoded)} frames in GOPs of {gop}")
    width, height, _ = decoded[0][2]
    _check_sizes(mp4, init_bytes, offsets, gop, (width, height))
    return VideoFacts(codec, len(decoded), fps, width, height, gop, layers, init_bytes, offsets)


def _check_sizes(mp4: bytes, init_bytes: int, offsets: np.ndarray, gop: int, size: tuple[int, int]) -> None:
    """A reader takes the size from the container, or from any frame's header: all must say what was decoded."""
    data = memoryview(mp4)
    try:
        samples = parse_fragments(data, init_bytes, offsets[1:].tolist(), 0, gop)
        contents = (data[at : at + length] for at, length in zip(samples.offset, samples.size, strict=True))
        check_size(parse_header(data[:init_bytes]).description, contents, size)
    except ValueError as error:
        raise BadVideo("output", str(error).replace("the index", "its pictures")) from error


class _Packets:
    """Checks the order of a stream's packets as they come, and which of them others may refer to."""

    def __init__(self, gop: int, layers: int, codec: str):
        if layers not in (1, 2) or (layers == 2 and gop % 2):
            raise BadVideo("output", f"{layers} layers in GOPs of {gop} frames; expected 1, or 2 and an even number")
        self._gop, self._layers, self._codec = gop, layers, codec
        self._first_pts, self._odd_references = 0, []
        self._last_dts: int | None = None
        self.key_frames: list[int] = []
        self.count = 0

    def check(self, packet: av.Packet) -> None:
        if packet.dts is None:
            return  # the end
        if packet.is_keyframe:
            self.key_frames.append(self.count)
        if packet.pts is None:
            raise BadVideo("output", f"packet {self.count} has no time")
        reordered = packet.pts != packet.dts and self._layers == 1
        if reordered or packet.pts < packet.dts or (self._last_dts is not None and packet.dts <= self._last_dts):
            raise BadVideo("output", f"packet {self.count} is out of order (B-frames?)")
        self._last_dts = packet.dts
        if self._layers == 2 and packet.duration:
            self._first_pts = self._first_pts if self.count else packet.pts
            number = (packet.pts - self._first_pts) // packet.duration
            if number % 2 and _is_reference(self._codec, memoryview(packet)):
                self._odd_references.append(number)
        self.count += 1

    def check_marks(self) -> None:
        """Nothing may refer to an odd frame that has a successor in its GOP."""
        for number in self._odd_references:
            if number % self._gop != self._gop - 1 and number != self.count - 1:
                raise BadVideo("output", f"frame {number} is marked as one that others refer to")


def _is_reference(codec: str, packet: memoryview) -> bool:
    """Whether a picture of H.264 or HEVC (NAL units behind their lengths) is marked as one that others may refer to."""
    position = 0
    while codec in ("h264", "hevc") and position + 5 <= len(packet):
        head = packet[position + 4]
        if codec == "h264" and head & 31 in (1, 5):
            return head >> 5 & 3 != 0
        if codec == "hevc" and (kind := head >> 1 & 63) < 32:
            return kind >= 16 or kind % 2 == 1  # below 16 the even types are sub-layer non-reference pictures
        position += 4 + int.from_bytes(packet[position : position + 4])
    return False


def _even_frames(mp4: bytes, init_bytes: int, offsets: np.ndarray, gop: int) -> Iterator[av.VideoFrame]:
    """The even frames, decoded from an MP4 that holds no others."""
    try:
        samples = parse_fragments(mp4, init_bytes, offsets[1:].tolist(), 0, gop)
        kept = [k for k, frame in enumerate(samples.frame) if frame % 2 == 0]
        sliced, _ = plain_mp4(parse_header(mp4[:init_bytes]), np.frombuffer(mp4, np.uint8), samples, kept)
    except ValueError as error:
        raise BadVideo("output", str(error)) from error
    with av.open(io.BytesIO(sliced.data), format="mp4", **LENIENT) as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from container.decode(video=0)


def _check_even_frame(number: int, whole: av.VideoFrame, alone: av.VideoFrame | None) -> None:
    if alone is None or not np.array_equal(whole.to_ndarray(), alone.to_ndarray()):
        raise BadVideo("output", f"frame {number} differs when the odd frames are left out: they are referred to")


def check_gops_alone(mp4: bytes, facts: VideoFacts) -> None:
    """Check that each GOP, cut out behind the header, decodes to exactly the frames it gives in the whole file.

    Raises:
        BadVideo: reason ``output``: a GOP refers to frames before it.
    """
    whole = _frame_hashes(mp4)
    for k in range(len(facts.offsets) - 1):
        alone = _frame_hashes(mp4[: facts.init_bytes] + mp4[facts.offsets[k] : facts.offsets[k + 1]])
        if alone != whole[k * facts.gop : (k + 1) * facts.gop]:
            raise BadVideo("output", f"GOP {k} is not closed: alone it decodes to other frames")


def _frame_hashes(mp4: bytes) -> list[int]:
    try:
        with av.open(io.BytesIO(mp4), "r", format="mp4") as container:
            container.streams.video[0].codec_context.thread_count = 1
            return [zlib.crc32(frame.to_ndarray().data) for frame in container.decode(video=0)]
    except av.error.FFmpegError as error:
        raise BadVideo("output", f"does not decode: {error}") from error


def _check_streams(container: av.container.InputContainer) -> None:
    if len(container.streams) != 1 or len(container.streams.video) != 1:
        raise BadVideo("output", f"{len(container.streams)} streams, expected one video stream")
    context = container.streams.video[0].codec_context
    aspect = context.sample_aspect_ratio
    if aspect and aspect != 1:
        raise BadVideo("output", f"pixels are not square ({aspect})")


def _check_frames(
    decoded: list[tuple[int, bool, tuple]],
    tick: Fraction,
    packets: int,
    gop: int,
    fps: Fraction,
    frames: int | None,
    layers: int,
) -> None:
    if not decoded or len(decoded) != packets:
        raise BadVideo("output", f"{packets} packets decode to {len(decoded)} frames")
    if frames is not None and len(decoded) != frames:
        raise BadVideo("output", f"decodes to {len(decoded)} frames, expected {frames}")
    shape = decoded[0][2]
    if shape[0] % BLOCK or shape[1] % BLOCK or shape[2] != "yuv420p":
        raise BadVideo("output", f"{shape[0]}x{shape[1]} {shape[2]}, expected multiples of {BLOCK} and yuv420p")
    # B-frames without an edit list or negative times: everything is shown one frame late
    numerator, denominator = (tick * fps).as_integer_ratio()  # frames per tick
    shift = int(layers == 2 and decoded[0][0] * numerator == denominator)
    for k, (time, key, shape_k) in enumerate(decoded):
        if time * numerator != (k + shift) * denominator:
            shown, expected = float(time * tick), float(k / fps)
            raise BadVideo("output", f"frame {k} is shown at {shown:.6f} s, expected {expected:.6f} s")
        if key != (k % gop == 0):
            raise BadVideo("output", f"frame {k} is {'' if key else 'not '}a key frame, with GOPs of {gop}")
        if shape_k != shape:
            raise BadVideo("output", f"frame {k} is {shape_k}, the first one {shape}")

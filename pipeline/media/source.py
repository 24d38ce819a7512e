"""Opening an untrusted video file and decoding it: what is allowed, what is damaged, what is missing is said.

Only the open file object is read: no name in the file is ever opened.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import av.container
import av.error
import av.stream
import av.video

from ..pyav import LENIENT
from ..shards.quarantine import BadVideo
from .clock import Clock, PacketTimes, TimedFrame, tick

# Demuxers and decoders that may touch an untrusted file. Left out on purpose: everything that opens other files or
# addresses named inside a file (hls, dash, concat, image sequences) and everything that is not a camera's format.
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "ivf")
CODECS = (
    "h264 hevc vp8 vp9 av1 mpeg1video mpeg2video mpeg4 msmpeg4v2 msmpeg4v3 wmv1 wmv2 wmv3 vc1 h263 flv1 mjpeg theora "
    "prores rawvideo ffv1 huffyuv dnxhd"
).split()
MAX_LEADING = 300  # packets before the first picture that may fail: a cut that did not fall on a key frame
SHORT_OF_DURATION = 0.95  # less than this share of the announced duration: truncated
_BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT: the same pixels with every instruction set of the CPU
# Formats in which a search by time cannot be trusted: clocks restart in them, and they have no index. They are decoded
# from their beginning, as is AVI with B-frames, which knows no time of showing.
_UNSEEKABLE = {"mpegts", "mpeg"}
_SEEK_MARGINS = (0.0, 2.0, 15.0)  # seconds before the wanted time, until a search lands before it


@dataclass(frozen=True)
class SourceFacts:
    """What a file's header says: decoder, pixels, average frames per second (0 if unsaid)."""

    codec: str
    width: int
    height: int
    fps: float


class VideoSource:
    """The video stream of an open file.

    Args:
        file: seekable.
        decoders: False: for the header alone. FFmpeg then opens no decoder to look at the first frames, which takes
            three quarters of the time of a small file; what only frames tell (the size in MPEG streams) is 0.

    Raises:
        BadVideo: not a video file of an allowed kind, with the reason.
    """

    def __init__(self, file: BinaryIO, decoders: bool = True):
        self._file, self._decoders = file, decoders
        self._open()

    def _open(self) -> None:
        self._file.seek(0)
        self.container = _open(self._file, self._decoders)
        try:
            self.stream = _video_stream(self.container)
        except BaseException:
            self.container.close()
            raise
        self.context = self.stream.codec_context
        self.context.thread_count = 1
        self.context.flags |= _BITEXACT

    @property
    def rate(self) -> Fraction | None:
        """Average frames per second, as far as the header or the first packets tell."""
        return self.stream.average_rate or self.stream.guessed_rate

    @property
    def facts(self) -> SourceFacts:
        """What the header says."""
        rate = self.rate
        name = self.context.codec.canonical_name
        return SourceFacts(name, self.context.width, self.context.height, float(rate) if rate else 0.0)

    @property
    def pixel_aspect(self) -> Fraction:
        """Width over height of a pixel; 1 where the header is broken."""
        aspect = self.stream.sample_aspect_ratio or self.context.sample_aspect_ratio or Fraction(1)
        return aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)  # outside: a broken header, not a lens

    @property
    def seconds(self) -> Fraction | None:
        """Duration by the header of the stream, or of a file with nothing else in it."""
        if self.stream.duration:
            return self.stream.duration * tick(self.stream)
        if self.container.duration and len(self.container.streams) == 1 and self.container.format.name != "mpegts":
            return Fraction(self.container.duration, av.time_base)
        return None

    def packets(self) -> Iterator[av.Packet]:
        """The stream's packets from where the file stands, and an empty one at the end."""
        return self.container.demux(self.stream)

    def seek_before(self, start: float, first: int) -> None:
        """Go to a key frame before ``start`` seconds after the first frame, whose time is ``first`` ticks.

        Where the search lands is looked at, and another one tries further back, in the end from the beginning.
        """
        target = first + int(start / tick(self.stream))
        formats = set(self.container.format.name.split(","))
        if formats & _UNSEEKABLE or ("avi" in formats and self.context.has_b_frames):
            return self.rewind()
        for margin in _SEEK_MARGINS:
            place = target - int(margin / tick(self.stream))
            if place <= first or not self._lands_before(place, target):
                continue
            self.container.seek(place, stream=self.stream)
            return None
        return self.rewind()

    def _lands_before(self, place: int, target: int) -> bool:
        try:
            self.container.seek(place, stream=self.stream)
            landed = next((packet for packet in self.packets() if packet.size), None)
        except av.error.FFmpegError:
            return False
        times = [] if landed is None else [t for t in (landed.pts, landed.dts) if t is not None]
        return landed is not None and bool(times) and landed.is_keyframe and max(times) <= target

    def rewind(self) -> None:
        """Go to the beginning, by opening the file again."""
        self.container.close()
        self._open()

    def close(self) -> None:
        """Let go of the file."""
        self.container.close()

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(file: BinaryIO, decoders: bool) -> av.container.InputContainer:
    allowed = ",".join([*CODECS, "libdav1d", "libvpx", "libvpx-vp9"]) if decoders else "none"
    options = {"protocol_whitelist": "", "codec_whitelist": allowed}
    try:
        container = av.open(file, container_options=options, **LENIENT)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except av.error.PermissionError as error:  # FFmpeg's answer to a file that names other files
        raise BadVideo("not_allowed", "a playlist, or another kind of file that is not on the allow-list") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise BadVideo("unreadable", f"not a video file of a known kind ({first_line(error)})") from error
    if not set(container.format.name.split(",")) & set(CONTAINERS):
        container.close()
        raise BadVideo("not_allowed", f"container {container.format.name} is not on the allow-list")
    return container


def _video_stream(container: av.container.InputContainer) -> av.video.stream.VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        if not container.streams:
            raise BadVideo("unreadable", "only a header of a video file")
        kinds = ", ".join(sorted({s.type for s in container.streams}))
        raise BadVideo("no_video", f"holds no video, only {kinds}")
    context = streams[0].codec_context
    if context is None or context.codec.canonical_name not in CODECS:
        name = "unknown" if context is None else context.codec.canonical_name
        raise BadVideo("not_allowed", f"codec {name} is not on the allow-list")
    return streams[0]


def decode(source: VideoSource, times: PacketTimes, complete: bool) -> Iterator[av.VideoFrame]:
    """Frames in the order they are shown.

    Args:
        source: stands where decoding is to begin.
        times: is told the times of all packets that go into the decoder.
        complete: also check that the file does not end before its header says.

    Raises:
        BadVideo: damage, a change of size, or a file that ends early; after the frames before it.
    """
    shape, end, stream = None, None, source.stream  # `end` in ticks from the stream's start
    announced, begin = source.seconds if complete else None, stream.start_time or 0
    damaged, leading = None, 0
    for packet in source.packets():
        if damaged is not None and packet.size:
            raise BadVideo("corrupt", f"damaged packet near {damaged:.2f} s")
        if packet.is_corrupt:
            damaged = float((packet.pts or 0) * packet.time_base)
            continue
        times.add(packet)
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            leading += 1
            if shape is not None or leading > MAX_LEADING:
                raise
            times.drop(packet)
            continue
        for frame in frames:
            if frame.is_corrupt:
                raise BadVideo("corrupt", f"damaged picture at {frame.time or 0:.2f} s")
            size = (frame.width, frame.height)
            if shape is None:
                shape = size
            elif shape != size:
                raise BadVideo("size_change", f"{shape[0]}x{shape[1]} becomes {size[0]}x{size[1]} mid-stream")
            if announced is not None and (pts := frame.pts) is not None:
                ends = pts + (frame.duration or 0) - begin
                if end is None or ends > end:
                    end = ends
            yield frame
    if shape is None and leading:
        raise BadVideo("corrupt", f"none of its {leading} packets can be decoded")
    if damaged is not None:
        raise BadVideo("truncated", f"the file ends inside a packet near {damaged:.2f} s")
    if announced is None or end is None:
        return
    seconds = end * tick(stream)
    if seconds < SHORT_OF_DURATION * announced - Fraction(1, 20):
        raise BadVideo("truncated", f"{float(seconds):.2f} s of the announced {float(announced):.2f} s are there")


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    text = str(getattr(error, "strerror", None) or error).splitlines()
    return text[0][:200] if text else type(error).__name__


def decoded(
    source: VideoSource, start: float | None = None, complete: bool = True
) -> tuple[Clock, Iterator[TimedFrame]]:
    """All frames with their times, or those from a little before ``start`` seconds on; and the clock that times them.

    Raises (while the frames are taken):
        BadVideo: as ``decode`` and ``Clock.run``.
    """
    first = None
    if start:
        clock, times = Clock(source.stream), PacketTimes()
        if next(clock.run(decode(source, times, complete=False), times), None) is not None:
            first = clock.first
            assert first is not None, "it has timed a frame"
            source.seek_before(start, first)
    clock, times = Clock(source.stream, first), PacketTimes()
    return clock, clock.run(decode(source, times, complete), times)

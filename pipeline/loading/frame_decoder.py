"""One clip with libavcodec (PyAV): packets in, RGB frames cut and scaled out. Needs neither torch nor DALI.

Packets are cut from the slice by its table and go straight into a decoder that is kept from clip to clip, so there is
no demuxer. Only wanted frames are converted: cut, scaled and turned to RGB by one chain of swscale.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
import av.filter
import numpy as np
from av.video.reformatter import ColorRange

from ..shards.sample_table import TrackHeader

# the fastest decoder of each codec in the libavcodec that PyAV brings
CORES_CODECS = {"h264": "h264", "hevc": "hevc", "vp9": "vp9", "vp8": "vp8", "mjpeg": "mjpeg", "av1": "libdav1d"}
_CONFIGURATION = (b"avcC", b"hvcC", b"av1C")
_ENTRY = 16 + 8 + 78  # in a stsd box: its header and counters, an entry's header, the fixed part of a video entry
_KEPT = 64  # decoders and scalers a thread keeps: one for each size of picture, codec, and parity of the crop
_TOGETHER = 8  # frames that leave a scaler as one tall picture, at most: what a clip costs at 16 is the same
_FILTER = "bilinear+accurate_rnd"  # where it shrinks, a triangle as wide as the step: what DALI calls antialias
# Chroma lies between the luma pixels in both directions, as DALI takes it; in 1/256 luma pixel. A crop that starts at
# an odd pixel starts half a chroma pixel later. Of an odd number of pixels swscale takes half a chroma pixel too many,
# a drift of one luma pixel over the crop: shifted by half of it, colours are right in the middle.
_CHROMA, _ODD_START, _ODD_SIZE = 128, -256, 128


class CannotDecode(RuntimeError):
    """A clip that libavcodec cannot decode; the message says why."""


@dataclass(frozen=True)
class SliceTable:
    """Where the frames of a slice lie, for a decoder that needs no demuxer.

    Attributes:
        track: the header of the video.
        sizes: bytes of each sample, in the order decoded; together they are the end of the MP4.
        shown: the place of each sample in the order shown.
    """

    track: TrackHeader
    sizes: list[int]
    shown: list[int]


class KeptDecoders:
    """The decoders and scalers of one thread.

    Args:
        size: side of the delivered frames, pixels.
    """

    def __init__(self, size: int):
        self._size = size
        self._contexts: OrderedDict[tuple[str, bytes], av.VideoCodecContext] = OrderedDict()
        self._scalers: OrderedDict[tuple, _Scaler] = OrderedDict()

    def forget(self) -> None:
        """After an error, start with new decoders, and with scalers that hold no frame of the clip that failed."""
        self._contexts.clear()
        self._scalers.clear()

    def close(self) -> None:
        """Free the decoders."""
        self.forget()

    def clip(
        self,
        codec: str,
        mp4: np.ndarray,
        table: SliceTable,
        frames: np.ndarray,
        picture: tuple[int, int],
        region: tuple[int, int, int, int],
        out: np.ndarray,
    ) -> None:
        """Decode the frames numbered ``frames`` in the order shown into ``out``, uint8 (T, size, size, 3).

        Raises:
            ValueError, av.error.FFmpegError: that is not possible.
        """
        context = self.context(codec, decoder_parameters(table.track.description))
        rows: dict[int, int] = {}
        for row, number in enumerate(frames.tolist()):
            rows.setdefault(number, row)
        missing, together, scaler, form = len(rows), _frames_together(len(rows)), None, ""
        pushed: list[int] = []
        for frame in decoded_frames(context, mp4, table):
            row = rows.get(frame.pts if frame.pts is not None else -1)
            if row is None:
                continue
            if frame.is_corrupt:
                raise ValueError("a frame is damaged")
            if (frame.width, frame.height) != picture:
                raise ValueError(
                    f"its pictures are {frame.width}x{frame.height}, the index says {picture[0]}x{picture[1]}"
                )
            if scaler is None:
                scaler, form = self._scaler(frame, region, together), frame.format.name
            elif frame.format.name != form:
                raise ValueError(f"its pictures change from {form} to {frame.format.name}")
            scaler.push(frame, region)
            pushed.append(row)
            if len(pushed) == together:
                out[pushed] = scaler.pull()
                pushed.clear()
            missing -= 1
            if not missing:
                break
        if missing:
            raise ValueError(f"{missing} of its frames do not come out of the decoder")
        for row, number in enumerate(frames.tolist()):
            if rows[number] != row:  # a short video, whose frames are repeated
                out[row] = out[rows[number]]

    def context(self, codec: str, parameters: bytes) -> av.VideoCodecContext:
        """A decoder at its beginning, by its name in libavcodec and what ``decoder_parameters`` found."""
        key = (codec, parameters)
        context = self._contexts.get(key)
        if context is not None:
            context.flush_buffers()
            self._contexts.move_to_end(key)
            return context
        context = av.CodecContext.create(codec, "r")
        assert isinstance(context, av.VideoCodecContext)
        context.thread_count, context.thread_type = 1, "NONE"
        context.options = {"err_detect": "explode"}  # an error instead of a guessed picture
        if parameters:
            context.extradata = parameters
        return _keep(self._contexts, key, context)

    def scaled(self, frame: av.VideoFrame, region: tuple[int, int, int, int], out: np.ndarray) -> None:
        """Put ``region`` (top, left, height, width) of a decoded frame into ``out``, uint8 (size, size, 3)."""
        scaler = self._scaler(frame, region, together=1)
        scaler.push(frame, region)
        out[:] = scaler.pull()[0]

    def _scaler(self, frame: av.VideoFrame, region: tuple[int, int, int, int], together: int) -> "_Scaler":
        full = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
        top, left, height, width = (n % 2 for n in region)
        rows, columns = (_CHROMA + _ODD_START * a + _ODD_SIZE * b for a, b in ((top, height), (left, width)))
        key = (frame.width, frame.height, frame.format.name, full, rows, columns, together)
        if key not in self._scalers:
            return _keep(self._scalers, key, _Scaler(*key, self._size))
        self._scalers.move_to_end(key)
        return self._scalers[key]


class _Scaler:
    """Cuts a region of frames of one size, scales it to a square of RGB; the chain of filters is kept.

    Through planar RGB, for which swscale has vector code and colours at every pixel: 55 us for 112x112, 75 us and half
    the resolution in colours when it writes RGB pixels at once. Frames leave as one tall picture of several: 16 frames
    of a clip one by one cost 0.2 ms more, in PyAV's calls and in a filter that starts 16 times.

    Args:
        width, height, form, full: of the frames: pixels, pixel format, and whether black is 0 and not 16.
        rows, columns: where chroma lies.
        together: frames of a tall picture.
        size: side of the square.
    """

    def __init__(
        self, width: int, height: int, form: str, full: bool, rows: int, columns: int, together: int, size: int
    ):
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        self._source = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(form), time_base=Fraction(1, 30)
        )
        self._crop = self._graph.add("crop", f"w={width}:h={height}:x=0:y=0:exact=1")
        # DALI takes every video for BT.601, and the converter makes it so
        colours = f"in_color_matrix=bt601:in_range={'pc' if full else 'tv'}:out_range=pc"
        place = f"in_h_chr_pos={columns}:in_v_chr_pos={rows}"
        self._sink = self._graph.add("buffersink")
        chain = [
            self._source,
            self._crop,
            self._graph.add("scale", f"{size}:{size}:flags={_FILTER}:{colours}:{place}"),
            self._graph.add("format", "pix_fmts=gbrp"),
            *([self._graph.add("tile", f"1x{together}")] if together > 1 else []),
            # not with flags=unstable, whose vectors save 0.1 ms a clip: it crashes at a width of 12 (FFmpeg 8.1)
            self._graph.add("scale", f"{size}:{size * together}"),
            self._graph.add("format", "pix_fmts=rgb24"),
            self._sink,
        ]
        self._graph.link_nodes(*chain).configure()
        self._region = (0, 0, height, width)
        self._shape = (together, size, size, 3)

    def push(self, frame: av.VideoFrame, region: tuple[int, int, int, int]) -> None:
        """Scale ``region`` (top, left, height, width) of a frame."""
        if region != self._region:
            self._aim(*region)
        self._source.push(frame)

    def pull(self) -> np.ndarray:
        """The last ``together`` frames, uint8 (together, size, size, 3); no contiguous array."""
        picture = self._sink.pull()
        assert isinstance(picture, av.VideoFrame)
        plane = picture.planes[0]  # 4 us: PyAV makes objects for all planes
        together, size, _, _ = self._shape
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(together, size, plane.line_size)
        return lines[:, :, : 3 * size].reshape(self._shape)

    def _aim(self, *region: int) -> None:
        for name, place, side in (("y", 0, 2), ("x", 1, 3)):
            commands = [(name, region[place]), ("h" if name == "y" else "w", region[side])]
            # the filter checks the region at every command: it must fit between the two as well
            grows = region[side] > self._region[side]
            for command, value in commands if grows else reversed(commands):
                self._crop.process_command(command, str(value), 0)
        self._region = region


def _frames_together(count: int) -> int:
    """Frames of a tall picture, for a clip of ``count``: all of its pictures have as many."""
    return next(n for n in range(_TOGETHER, 0, -1) if count % n == 0)


def decoded_frames(context: av.VideoCodecContext, mp4: np.ndarray, table: SliceTable):
    """All frames; ``pts`` is the place in the order shown."""
    data, position = mp4.data, len(mp4) - sum(table.sizes)
    for size, place in zip(table.sizes, table.shown, strict=True):
        packet = av.Packet(bytes(data[position : position + size]))
        packet.pts = place
        position += size
        yield from context.decode(packet)
    yield from context.decode(None)


def decoder_parameters(description: bytes) -> bytes:
    """What stands in the sample description for the decoder; empty for codecs that need nothing."""
    position = _ENTRY
    while position + 8 <= len(description):
        size, kind = struct.unpack_from(">I4s", description, position)
        if kind in _CONFIGURATION:
            return description[position + 8 : position + size]
        if size < 8:
            break
        position += size
    return b""


def _keep(kept: OrderedDict, key, value):
    kept[key] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)
    return value

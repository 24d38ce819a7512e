"""One clip with libavcodec (PyAV): packets in, RGB frames cut and resized out. Needs neither torch nor DALI.

Packets are cut from the slice by its table and go straight into a decoder that is kept from clip to clip, so there is
no demuxer. Only wanted frames are converted, each while it is in the caches (``planar_resize.py``).
"""

import functools
import logging
import struct
import time
from collections import OrderedDict
from dataclasses import dataclass

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from ..shards.sample_table import TrackHeader

# the fastest decoder of each codec in the libavcodec that PyAV brings
CORES_CODECS = {"h264": "h264", "hevc": "hevc", "vp9": "vp9", "vp8": "vp8", "mjpeg": "mjpeg", "av1": "libdav1d"}
_CONFIGURATION = (b"avcC", b"hvcC", b"av1C")
_ENTRY = 16 + 8 + 78  # in a stsd box: its header and counters, an entry's header, the fixed part of a video entry
_KEPT = 64  # decoders that a thread keeps: one for each codec and its parameters
# pixel formats of three planes of 8 bits, and where chroma has half as many pixels: rows, columns
_PLANES = {"yuv420p": (1, 1), "yuv422p": (0, 1), "yuv440p": (1, 0), "yuv444p": (0, 0)}
_LONG = 3.0  # seconds: it was not loaded

_log = logging.getLogger(__name__)


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
    """The decoders of one thread.

    Args:
        size: side of the delivered frames, pixels.
    """

    def __init__(self, size: int):
        self._size = size
        self._contexts: OrderedDict[tuple[str, bytes], av.VideoCodecContext] = OrderedDict()

    def forget(self) -> None:
        """After an error, start with new decoders."""
        self._contexts.clear()

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
        missing, cut = len(rows), None
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
            if cut is None:
                cut = _Cut(frame, region, self._size)
            cut.into(out[row], frame)
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
        _Cut(frame, region, self._size).into(out, frame)


@functools.cache
def load_compiled() -> None:
    """Load all compiled code now, not with the first clip, or compile it: 0.3 s, or 5 s when it is not yet on disk.

    A process behind a fence (``sandbox/fence.py``) could do neither later.
    """
    begin = time.monotonic()
    KeptDecoders(4).scaled(av.VideoFrame(16, 16, "yuv420p"), (0, 0, 16, 16), np.empty((4, 4, 3), np.uint8))
    if (spent := time.monotonic() - begin) > _LONG:
        _log.info("compiled for this processor what resizes pictures: %.0f s, once", spent)


class _Cut:
    """Cuts a region out of the frames of a clip, and resizes it to a square of RGB.

    Args:
        frame: the first of them; the others are of its size.
        region: top, left, height, width, pixels.
        size: side of the square.
    """

    def __init__(self, frame: av.VideoFrame, region: tuple[int, int, int, int], size: int):
        # here, for those alone who decode on the cores: Numba takes 0.3 s to import
        from .planar_resize import packed_rows, plan_region, resize_region

        self._resize = resize_region
        self._form = frame.format.name
        planes = _planes(self._form)
        # DALI takes every video for BT.601, and the converter makes it so
        self._full = planes is not None and (self._form.startswith("yuvj") or frame.color_range == ColorRange.JPEG)
        self._direct = planes is not None
        self._plan = plan_region((frame.height, frame.width), region, size, planes or (0, 0))
        # in the caches, which `out` is not, as rows are written in parts
        self._packed = packed_rows(size)
        self._rgb = self._packed.view(np.uint8)[:, : 3 * size]

    def into(self, out: np.ndarray, frame: av.VideoFrame) -> None:
        """Put the region of ``frame`` into ``out``, uint8 (size, size, 3)."""
        if frame.format.name != self._form:
            raise ValueError(f"its pictures change from {self._form} to {frame.format.name}")
        if not self._direct:  # RGB, more bits than 8, grey
            frame = frame.reformat(format="yuv444p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
        y, u, v = frame.planes
        pixels = [np.frombuffer(memoryview(plane), np.uint8) for plane in (y, u, v)]
        self._resize(pixels, (y.line_size, u.line_size), self._plan, self._full, self._packed)
        out.reshape(len(out), -1)[:] = self._rgb


def _planes(form: str) -> tuple[int, int] | None:
    """Where chroma has half as many pixels in a pixel format; None when it does not have three planes of 8 bits."""
    return _PLANES.get(form.replace("yuvj", "yuv"))


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

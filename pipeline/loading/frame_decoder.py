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
        """After an error, start with new decoders."""
        self._contexts.clear()

    def close(self) -> None:
        """Free the decoders."""
        self.forget()
        self._scalers.clear()

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
        missing, scaler, form = len(rows), None, None
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
            if scaler is None or frame.format.name != form:
                scaler, form = self._scaler(frame, region), frame.format.name
            scaler.scale(frame, region, out[row])
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
        self._scaler(frame, region).scale(frame, region, out)

    def _scaler(self, frame: av.VideoFrame, region: tuple[int, int, int, int]) -> "_Scaler":
        full = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
        top, left, height, width = (n % 2 for n in region)
        rows, columns = (_CHROMA + _ODD_START * a + _ODD_SIZE * b for a, b in ((top, height), (left, width)))
        key = (frame.width, frame.height, frame.format.name, full, rows, columns)
        if key not in self._scalers:
            return _keep(self._scalers, key, _Scaler(*key, self._size))
        self._scalers.move_to_end(key)
        return self._scalers[key]


class _Scaler:
    """Cuts a region of frames of one size, scales it to a square of RGB; the chain of filters is kept.

    Through planar RGB, for which swscale has vector code and colours at every pixel: 55 us for 112x112, 75 us and half
    the resolution in colours when it writes RGB pixels at once.
    """

    def __init__(self, width: int, height: int, form: str, full: bool, rows: int, columns: int, size: int):
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(form), time_base=Fraction(1, 30)
        )
        self._crop = self._graph.add("crop", f"w={width}:h={height}:x=0:y=0:exact=1")
        # DALI takes every video for BT.601, and the converter makes it so
        colours = f"in_color_matrix=bt601:in_range={'pc' if full else 'tv'}:out_range=pc"
        place = f"in_h_chr_pos={columns}:in_v_chr_pos={rows}"
        chain = [
            source,
            self._crop,
            self._graph.add("scale", f"{size}:{size}:flags={_FILTER}:{colours}:{place}"),
            self._graph.add("format", "pix_fmts=gbrp"),
            self._graph.add("scale", f"{size}:{size}"),
            self._graph.add("format", "pix_fmts=rgb24"),
            self._graph.add("buffersink"),
        ]
        self._graph.link_nodes(*chain).configure()
        self._region = (0, 0, height, width)

    def scale(self, frame: av.VideoFrame, region: tuple[int, int, int, int], out: np.ndarray) -> None:
        """Put ``region`` (top, left, height, width) of a frame into ``out``, uint8 (size, size, 3)."""
        if region != self._region:
            self._aim(*region)
        self._graph.vpush(frame)
        plane = self._graph.vpull().planes[0]
        side = out.shape[0]
        out[:] = (
            np.frombuffer(memoryview(plane), np.uint8).reshape(side, plane.line_size)[:, : 3 * side].reshape(out.shape)
        )

    def _aim(self, top: int, left: int, height: int, width: int) -> None:
        # the position goes to 0 first: the filter checks the region at every command
        for name, value in (("x", 0), ("y", 0), ("w", width), ("h", height), ("x", left), ("y", top)):
            self._crop.process_command(name, str(value), 0)
        self._region = (top, left, height, width)


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

"""Decoded frames as people see them: deinterlaced, upright, with square pixels, in BT.601 or RGB, without HDR."""

import functools
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error
import av.filter
import av.video
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from .clock import TimedFrame
from .tone_mapping import needs_mapping, to_sdr

# DALI's CPU decoder takes every video for BT.601, whatever its tag says (a BT.709 red of 200 became 188), so BT.709 and
# its like are converted. Untagged video is BT.601 to all decoders here.
BT601 = 5
_OTHER_MATRICES = (1, 4, 7, 9)  # BT.709, FCC, SMPTE 240M, BT.2020
# bit-exact: the same pixels with every instruction set of the CPU. Between two matrices that takes exact rounding, too;
# elsewhere exact rounding changes no pixel, but takes 2.6 times as long for a picture that keeps its height.
_SCALING = Interpolation.BICUBIC | Interpolation.BITEXACT
_CONVERTING = _SCALING | Interpolation.ACCURATE_RND


class Pictures:
    """Scales, converts and rotates the frames of one video.

    Args:
        pixel_aspect: width over height of a pixel.
        keep_hdr: take HDR and wide colour for ordinary video.

    Attributes:
        hdr: whether a frame was tone-mapped.
    """

    def __init__(self, pixel_aspect: Fraction, keep_hdr: bool = False):
        self._aspect, self._keep_hdr = pixel_aspect, keep_hdr
        self._scaler, self._second = VideoReformatter(), VideoReformatter()
        self._rotation: int | None = None
        self.hdr = False

    def shown_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Width and height of the upright picture with square pixels; the first frame decides on the rotation."""
        width, height = max(1, round(frame.width * self._aspect)), frame.height
        return (height, width) if self._turns(frame) % 2 else (width, height)

    def _turns(self, frame: av.VideoFrame) -> int:
        """Quarter turns anticlockwise that show the video upright."""
        if self._rotation is None:
            self._rotation = round(frame.rotation / 90) % 4
        return self._rotation

    def yuv(self, frame: av.VideoFrame, size: tuple[int, int]) -> av.VideoFrame:
        """yuv420p of (width, height) ``size``, BT.601 in limited range."""
        turns = self._turns(frame)
        coded = (size[1], size[0]) if turns % 2 else size
        if not self._keep_hdr and needs_mapping(int(frame.color_trc or 0), int(frame.color_primaries or 0)):
            mapped = av.VideoFrame.from_ndarray(self._mapped(frame, coded), format="rgb24")
            out = _reformat(self._second, mapped, coded, "yuv420p", None)
        else:
            out = _reformat(self._scaler, frame, coded, "yuv420p", BT601)
        return _turn(out, turns) if turns else out

    def rgb(self, frame: av.VideoFrame, size: tuple[int, int] | None = None) -> np.ndarray:
        """uint8 (H, W, 3) of (width, height) ``size``; None is the size shown."""
        turns, size = self._turns(frame), size or self.shown_size(frame)
        coded = (size[1], size[0]) if turns % 2 else size
        if not self._keep_hdr and needs_mapping(int(frame.color_trc or 0), int(frame.color_primaries or 0)):
            picture = self._mapped(frame, coded)
        else:
            picture = _reformat(self._scaler, frame, coded, "rgb24", None).to_ndarray()
        return np.ascontiguousarray(np.rot90(picture, turns))

    def _mapped(self, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        self.hdr = True
        return to_sdr(_reformat(self._scaler, frame, size, "rgb48le", None).to_ndarray(), int(frame.color_trc or 0))


def deinterlaced(
    frames: Iterator[TimedFrame], stream: av.video.stream.VideoStream, notes: set[str]
) -> Iterator[TimedFrame]:
    """Frames of which interlaced ones are deinterlaced (bwdif, one frame out for one in); others pass as they are.

    Args:
        frames: of one video, with their times.
        stream: theirs.
        notes: gets "deinterlaced" when a frame was.
    """
    filters = None
    for timed in frames:
        if filters is None and not timed.frame.interlaced_frame:
            yield timed
            continue
        if filters is None:
            notes.add("deinterlaced")
            filters = _Deinterlacer(timed.frame, stream)
        yield from filters.push(timed)
    if filters is not None:
        yield from filters.push(None)


class _Deinterlacer:
    """bwdif uses both neighbours of a frame: frames leave it one later, with their own times, which it does not see."""

    def __init__(self, frame: av.VideoFrame, stream: av.video.stream.VideoStream):
        self._graph, self._waiting, self._count = av.filter.Graph(), deque(), 0
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=stream.time_base
        )
        bwdif = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink"))
        self._graph.configure()

    def push(self, timed: TimedFrame | None) -> Iterator[TimedFrame]:
        """Give a frame, or None for the end; get those that are finished."""
        if timed is None:
            self._graph.vpush(None)
        else:
            self._waiting.append((timed.ticks, timed.frame.duration))
            timed.frame.pts, self._count = self._count, self._count + 1
            self._graph.vpush(timed.frame)
        while self._waiting:
            try:
                out = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            ticks, out.duration = self._waiting.popleft()
            yield TimedFrame(ticks, out)


def _reformat(scaler: VideoReformatter, frame: av.VideoFrame, size: tuple[int, int], form: str, matrix: int | None):
    how = _conversion(frame.format.name, int(frame.color_range or 0), int(frame.colorspace or 0), form, matrix)
    return scaler.reformat(frame, *size, form, threads=1, **how)


@functools.lru_cache(maxsize=64)  # of one video it is the same for all frames
def _conversion(name: str, color_range: int, colorspace: int, form: str, matrix: int | None) -> dict[str, int]:
    """How frames of format ``name`` become ``form``, in plain numbers, which PyAV need not look up for every frame."""
    full_range = name.startswith("yuvj") or color_range == ColorRange.JPEG
    own = colorspace if colorspace in _OTHER_MATRICES else BT601
    scaled_only = form == "yuv420p" and matrix == own
    return {
        "interpolation": int(_SCALING if scaled_only else _CONVERTING),
        "src_colorspace": own,
        "dst_colorspace": matrix or own,
        "src_color_range": int(ColorRange.JPEG if full_range else ColorRange.MPEG),
        "dst_color_range": int(ColorRange.MPEG if form == "yuv420p" else ColorRange.JPEG),
    }


def _turn(frame: av.VideoFrame, quarter_turns: int) -> av.VideoFrame:
    """Rotate a yuv420p frame anticlockwise."""
    planes = []
    plane: Any  # a buffer at run time, which PyAV's types do not say
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        planes.append(np.ascontiguousarray(np.rot90(rows, quarter_turns)))
    height, width = planes[0].shape
    turned = av.VideoFrame(width, height, "yuv420p")
    for plane, data in zip(turned.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = data
        plane.update(padded)
    turned.color_range, turned.colorspace = frame.color_range, frame.colorspace
    return turned

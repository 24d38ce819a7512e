"""One video file -> one MP4 of the shard contract.

    demux (allow-listed) -> decode -> constant rate -> scale -> 8-bit 4:2:0 -> rotate -> encode -> decode back, check

Runs in a sandboxed child process (``sandbox_worker.py``). Nothing here writes a file. Frames pass one at a time, so
that memory does not grow with the length of the video.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from ..pyav import LENIENT
from ..shards.contract import VideoFacts, check_video
from ..shards.layers import picture_type
from ..shards.mp4_file import open_fragmented
from ..shards.quarantine import BadVideo
from ..shards.video_format import VideoFormat, output_rate, output_size
from .remux import remux

# Demuxers and decoders that may touch a stranger's file. Left out on purpose: everything that opens other files or
# addresses named inside a file (hls, dash, concat, image sequences) and everything that is not a camera's format.
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "ivf")
CODECS = (
    "h264 hevc vp8 vp9 av1 mpeg1video mpeg2video mpeg4 msmpeg4v2 msmpeg4v3 wmv1 wmv2 wmv3 vc1 h263 flv1 mjpeg theora "
    "prores rawvideo ffv1 huffyuv dnxhd"
).split()

ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9"}
# odd frames refer to the even one before them, and none refers to them; without error resilience the probabilities
# learnt on odd frames would be needed by even ones
VP9_LAYERS = {
    "error-resilient": "default",
    "ts-parameters": "ts_number_layers=2:ts_target_bitrate=300,500:ts_rate_decimator=2,1:ts_periodicity=2:"
    "ts_layer_id=0,1:ts_layering_mode=2",
}
QUALITY = {"h264": 23, "hevc": 26, "vp9": 31}  # constant rate factor
# DALI's CPU decoder takes every video for BT.601, whatever its tag says (a BT.709 red of 200 became 188), so BT.709 and
# its like are converted. Untagged video is BT.601 to all decoders here.
BT601 = 5
OTHER_MATRICES = (1, 4, 7, 9)  # BT.709, FCC, SMPTE 240M, BT.2020
# bit-exact: the same pixels with every instruction set of the CPU
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
MAX_OUTPUT = 96 << 20  # bytes; about 20 minutes, held in memory until the video is done
MAX_LEADING = 300  # packets before the first picture that may fail: a cut that did not fall on a key frame
MAX_GAP_S = 60  # a hole in the timestamps longer than this is a fault, not a still picture
SHORT_OF_DURATION = 0.95  # less than this share of the announced duration: truncated


@dataclass(frozen=True)
class Transcoded:
    """An encoded video, the facts found by decoding it back, and what its source was."""

    mp4: bytes
    facts: VideoFacts
    source_codec: str
    source_width: int
    source_height: int
    source_fps: float


def transcode(
    file: BinaryIO, recipe: VideoFormat, start: float | None = None, end: float | None = None, maybe_cut: bool = False
) -> Transcoded:
    """Convert one open, seekable file.

    Args:
        file: the source. Only this object is read: no name in the file is ever opened.
        recipe: the output.
        start, end: the part to keep, seconds from the first frame; None is the whole video.
        maybe_cut: take the whole file when it is no longer than the part: it was cut out before.

    Raises:
        BadVideo: with the reason for the quarantine list.
    """
    source = _open(file)
    try:
        if maybe_cut and start is not None and end is not None and _is_cut(source, end - start):
            start = end = None
        return _convert(source, recipe, start, end)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except av.FFmpegError as error:
        raise BadVideo("corrupt", _first_line(error)) from error
    finally:
        source.close()


def probe(file: BinaryIO) -> dict:
    """What the header of an open file says: ``codec``, ``width``, ``height``, ``fps``, ``seconds`` (None if unsaid).

    Raises:
        BadVideo: as ``transcode``, as far as the header shows.
    """
    source = _open(file)
    try:
        stream = _video_stream(source)
        context, rate = stream.codec_context, stream.average_rate or stream.guessed_rate
        seconds = _announced_seconds(source, stream)
        if seconds is None and source.duration:
            seconds = Fraction(source.duration, av.time_base)
        return {
            "codec": context.codec.canonical_name,
            "width": context.width,
            "height": context.height,
            "fps": float(rate) if rate else None,
            "seconds": None if seconds is None else float(seconds),
        }
    finally:
        source.close()


def _open(file: BinaryIO) -> av.container.InputContainer:
    options = {"protocol_whitelist": "", "codec_whitelist": ",".join(_decoder_names())}
    try:
        source = av.open(file, container_options=options, **LENIENT)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except av.error.PermissionError as error:  # FFmpeg's answer to a file that names other files
        raise BadVideo("not_allowed", "a playlist, or another kind of file that is not on the allow-list") from error
    except (av.FFmpegError, ValueError) as error:
        raise BadVideo("unreadable", f"not a video file of a known kind ({_first_line(error)})") from error
    names = source.format.name.split(",")
    if not set(names) & set(CONTAINERS):
        source.close()
        raise BadVideo("not_allowed", f"container {source.format.name} is not on the allow-list")
    return source


def _convert(
    source: av.container.InputContainer, recipe: VideoFormat, start: float | None, end: float | None
) -> Transcoded:
    stream = _video_stream(source)
    context = stream.codec_context
    codec = context.codec.canonical_name
    _check_pixels(context.width, context.height, recipe)
    context.thread_count = 1
    rate = stream.average_rate or stream.guessed_rate
    about = (codec, context.width, context.height, float(rate) if rate else 0.0)
    if recipe.codec == "copy":
        if start is not None or end is not None or recipe.max_seconds is not None:
            raise BadVideo("contract", "a part cannot be cut out without encoding it")
        mp4, fps = remux(source, stream, recipe.gop)
        return Transcoded(mp4, check_video(mp4, gop=recipe.gop, fps=fps), *about)
    fps = output_rate(recipe.fps, rate)
    limit = None if end is None else end - (start or 0)
    if recipe.max_seconds is not None:
        limit = recipe.max_seconds if limit is None else min(limit, recipe.max_seconds)
    max_frames = None if limit is None else max(1, round(limit * fps))
    if start:
        source.seek(int(start / stream.time_base) + (stream.start_time or 0), stream=stream)
    frames = constant_rate(_decode(source, stream, complete=max_frames is None), stream, fps, start or 0.0, max_frames)
    encoder = _Encoder(recipe, fps, _pixel_aspect(stream))
    for k, frame in frames:
        encoder.add(k, frame)
    mp4 = encoder.finish()
    facts = check_video(mp4, gop=recipe.gop, fps=fps, frames=encoder.count, layers=recipe.layers)
    return Transcoded(mp4, facts, *about)


def _video_stream(source: av.container.InputContainer) -> av.video.stream.VideoStream:
    streams = [s for s in source.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        if not source.streams:
            raise BadVideo("unreadable", "nothing but a header of a video file")
        kinds = ", ".join(sorted({s.type for s in source.streams}))
        raise BadVideo("no_video", f"holds no video, only {kinds}")
    stream = streams[0]
    context = stream.codec_context
    if context is None or context.codec.canonical_name not in CODECS:
        name = "unknown" if context is None else context.codec.canonical_name
        raise BadVideo("not_allowed", f"codec {name} is not on the allow-list")
    return stream


def _pixel_aspect(stream: av.video.stream.VideoStream) -> Fraction:
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    return aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)  # outside: a broken header, not a lens


def _check_pixels(width: int, height: int, recipe: VideoFormat) -> None:
    if width * height > recipe.max_megapixels * 1e6:
        raise BadVideo("too_large", f"{width}x{height} is more than {recipe.max_megapixels:g} megapixels")


def _decode(source, stream, complete: bool) -> Iterator[av.VideoFrame]:
    """Frames in the order they are shown; raises when the file ends before its own header says."""
    shape, end = None, None
    announced = _announced_seconds(source, stream)
    damaged, leading = None, 0
    for packet in source.demux(stream):
        if damaged is not None and packet.size:
            raise BadVideo("corrupt", f"damaged packet near {damaged:.2f} s")
        if packet.is_corrupt:
            damaged = float((packet.pts or 0) * packet.time_base)
            continue
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            leading += 1
            if shape is not None or leading > MAX_LEADING:
                raise
            continue
        for frame in frames:
            if frame.is_corrupt:
                raise BadVideo("corrupt", f"damaged picture at {frame.time or 0:.2f} s")
            if shape is None:
                shape = (frame.width, frame.height)
            elif shape != (frame.width, frame.height):
                raise BadVideo("size_change", f"{shape[0]}x{shape[1]} becomes {frame.width}x{frame.height} mid-stream")
            if frame.pts is not None:
                end = (frame.pts + (frame.duration or 0) - (stream.start_time or 0)) * frame.time_base
            yield frame
    if shape is None and leading:
        raise BadVideo("corrupt", f"none of its {leading} packets can be decoded")
    if damaged is not None:
        raise BadVideo("truncated", f"the file ends inside a packet near {damaged:.2f} s")
    if complete and announced is not None and end is not None and end < SHORT_OF_DURATION * announced - Fraction(1, 20):
        raise BadVideo("truncated", f"{float(end):.2f} s of the announced {float(announced):.2f} s are there")


def _is_cut(source: av.container.InputContainer, seconds: float) -> bool:
    """Whether the file holds no more than ``seconds``; a second of tolerance, for cuts fall on key frames."""
    announced = _announced_seconds(source, _video_stream(source))
    if announced is None and source.duration:
        announced = Fraction(source.duration, av.time_base)
    return announced is not None and announced <= seconds + 1


def _announced_seconds(source, stream) -> Fraction | None:
    if stream.duration:
        return stream.duration * stream.time_base
    if source.duration and len(source.streams) == 1 and source.format.name != "mpegts":
        return Fraction(source.duration, av.time_base)
    return None


def constant_rate(
    frames: Iterator[av.VideoFrame], stream, fps: Fraction, start: float = 0.0, max_frames: int | None = None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Resample to a constant rate as ffmpeg's ``fps`` filter does: each output time shows the nearest source frame.

    A source frame at time t belongs to output round((t - t0) * fps), t0 being the first frame's time plus ``start``; of
    several for one output the last wins; a hole is filled with the frame before it; the last frame lasts its duration.

    Yields:
        (k, frame) for k = 0, 1, 2, ...; the same frame object may come several times.
    """
    held, held_k, held_end, count, origin = None, 0, 0, 0, None
    per_tick = stream.time_base * fps  # output frames per unit of the source's clock
    usual = round(1 / (stream.time_base * stream.average_rate)) if stream.average_rate else 0
    max_gap = round(MAX_GAP_S * fps)
    for number, frame in enumerate(frames):
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            raise BadVideo("timestamps", f"frame {number} has no time")
        if origin is None:  # after a seek the first frame decoded is not the video's first one
            first = stream.start_time if start and stream.start_time is not None else pts
            origin = first + round(Fraction(start) / stream.time_base)
        k = _round((pts - origin) * per_tick)
        if held is not None:
            if k - held_k > max_gap:
                raise BadVideo("timestamps", f"a hole of {float((k - held_k) / fps):.0f} s before frame {number}")
            stop = k if max_frames is None else min(k, max_frames)
            for j in range(count, stop):
                yield j, held
            count = max(count, stop)
            if count == max_frames:
                return
        held, held_k, held_end = frame, k, pts + (frame.duration or usual) - origin
    if held is None or held_k < 0:
        raise BadVideo("no_frames", "the video stream yields no picture" + (" in the wanted part" if start else ""))
    stop = max(1, min(_round(held_end * per_tick), held_k + max_gap))
    for j in range(count, stop if max_frames is None else min(stop, max_frames)):
        yield j, held


def _round(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


class _Encoder:
    """Scales, converts, rotates and encodes frames into a fragmented MP4 in memory; built on the first frame."""

    def __init__(self, recipe: VideoFormat, fps: Fraction, pixel_aspect: Fraction):
        self.recipe, self.fps, self.pixel_aspect, self.count = recipe, fps, pixel_aspect, 0
        self._buffer = io.BytesIO()
        self._scaler = VideoReformatter()
        self._stream = None
        self._last: tuple[av.VideoFrame, av.VideoFrame] | None = None
        self._waiting: av.VideoFrame | None = None

    def add(self, k: int, frame: av.VideoFrame) -> None:
        if self._stream is None:
            self._start(frame)
        if self._last is None or self._last[0] is not frame:  # a repeated frame is scaled once
            self._last = (frame, self._prepare(frame))
        if self._waiting is not None:
            self._encode(last=False)
        self._waiting = self._last[1]
        self.count = k + 1

    def finish(self) -> bytes:
        self._encode(last=True)
        for packet in self._stream.encode(None):
            self._mux(packet)
        self._container.close()
        return self._buffer.getvalue()

    def _encode(self, last: bool) -> None:
        """Encode the waiting frame; only now is it known whether another one follows."""
        out, number = self._waiting, self.count - 1
        out.pts, out.time_base = number, 1 / self.fps
        # without a type of ours, the source's own picture types would force key frames where it had them
        key = number % self.recipe.gop == 0
        if self.recipe.codec == "vp9":
            out.pict_type = PictureType.I if key else PictureType.NONE
        else:
            out.pict_type = picture_type(number, self.recipe.gop, self.recipe.layers, last)
        for packet in self._stream.encode(out):
            self._mux(packet)

    def _mux(self, packet: av.Packet) -> None:
        packet.duration = 1
        self._container.mux(packet)
        if self._buffer.tell() > MAX_OUTPUT:
            seconds = float(self.count / self.fps)
            raise BadVideo(
                "too_long", f"its first {seconds:.0f} s fill {MAX_OUTPUT >> 20} MB; cut it, or pass --max-seconds"
            )

    def _start(self, frame: av.VideoFrame) -> None:
        recipe = self.recipe
        self._turns = round(frame.rotation / 90) % 4  # quarter turns anticlockwise that show it upright
        shown = (round(frame.width * self.pixel_aspect), frame.height)
        size = output_size(*(shown[::-1] if self._turns % 2 else shown), recipe.short_side)
        self._coded = size[::-1] if self._turns % 2 else size  # before the turn
        self._container = open_fragmented(self._buffer)
        quality = QUALITY[recipe.codec] if recipe.quality is None else recipe.quality
        self._stream = self._container.add_stream(
            ENCODERS[recipe.codec], rate=self.fps, options=encoder_options(recipe, quality)
        )
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = 1 / self.fps
        context.gop_size = recipe.gop
        context.max_b_frames = 1 if recipe.layers == 2 and recipe.codec != "vp9" else 0
        context.thread_count = 1
        context.color_range = ColorRange.MPEG
        context.colorspace = BT601

    def _prepare(self, frame: av.VideoFrame) -> av.VideoFrame:
        full_range = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
        matrix = frame.colorspace if frame.colorspace in OTHER_MATRICES else BT601
        out = self._scaler.reformat(
            frame,
            *self._coded,
            format="yuv420p",
            interpolation=SCALING,
            src_colorspace=matrix,
            dst_colorspace=BT601,
            src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        return _turn(out, self._turns) if self._turns else out


def encoder_options(recipe: VideoFormat, quality: int) -> dict[str, str]:
    """Options of libx264, libx265 or libvpx-vp9 for closed GOPs of exactly ``recipe.gop`` frames.

    The type of every frame of H.264 and HEVC is forced besides (``shards/layers.py``).
    """
    gop, layered = recipe.gop, recipe.layers == 2
    keys = {"g": str(gop), "keyint_min": str(gop), "flags": "+bitexact", "crf": str(quality)}
    if recipe.codec == "vp9":
        # lag 0 and no alt-ref: every packet is one shown frame
        speed = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0", "row-mt": "0"}
        return {**keys, **speed, "b": "0", **(VP9_LAYERS if layered else {})}
    params = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:bframes={int(layered)}:b-adapt=0"
    if recipe.codec == "h264":
        # the macroblock tree reads memory that it never wrote (AVX-512): other bytes for the same video. Without it
        # files are 4 to 10 % larger at equal PSNR. Some algorithms exist for some CPUs only; without them files are
        # 0.5 % larger, and no slower to make.
        params += f":b-pyramid=none:no-mbtree=1:cpu-independent=1:cabac={int(recipe.entropy == 'cabac')}:threads=1"
        return {**keys, "preset": "veryfast", "profile": "high", "forced-idr": "1", "x264-params": params}
    params += ":b-pyramid=0:pools=none:frame-threads=1:info=0:log-level=none"
    return {**keys, "preset": "fast", "forced-idr": "1", "x265-params": params}


def _turn(frame: av.VideoFrame, quarter_turns: int) -> av.VideoFrame:
    """Rotate a yuv420p frame anticlockwise."""
    planes = []
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


def _decoder_names() -> list[str]:
    return [*CODECS, "libdav1d", "libvpx", "libvpx-vp9"]


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error).splitlines()
    return text[0][:200] if text else type(error).__name__

"""One video file -> one MP4 of the shard contract.

    open, decode, time -> deinterlace -> constant rate -> scale, 8-bit 4:2:0, upright -> encode -> decode back, check

Runs in a sandboxed child process (``sandbox/worker.py``). Nothing here writes a file. Frames pass one at a time, so
that memory does not grow with the length of the video.
"""

import io
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import av.error
import av.video.stream
from av.video.frame import PictureType
from av.video.reformatter import ColorRange

from ..media.clock import ConstantRate, tick
from ..media.pictures import BT601, Pictures, deinterlaced
from ..media.source import SourceFacts, VideoSource, decoded, first_line
from ..shards.contract import VideoFacts, check_video
from ..shards.layers import picture_type
from ..shards.mp4_file import open_fragmented
from ..shards.quarantine import BadVideo
from ..shards.video_format import VideoFormat, output_rate, output_size
from .remux import remux

ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9"}
# odd frames refer to the even one before them, and none refers to them; without error resilience the probabilities
# learnt on odd frames would be needed by even ones
VP9_LAYERS = {
    "error-resilient": "default",
    "ts-parameters": "ts_number_layers=2:ts_target_bitrate=300,500:ts_rate_decimator=2,1:ts_periodicity=2:"
    "ts_layer_id=0,1:ts_layering_mode=2",
}
# Constant rate factors. HEVC has H.264's PSNR (bench/results/encoding-cpu.json). VP9 would have it at 38, but spends no
# bits on flat areas in particular, as the others do: 33 is the highest at which a grey that grows by one level a frame
# stays exact, as it does with them.
QUALITY = {"h264": 23, "hevc": 26, "vp9": 33}
_UNSAID = {**QUALITY, "vp9": 31}  # of a recipe without one: VP9's default when plans were first made
# frames that are encoded in a row, while the encoder is in the processor's caches: 3 to 5 % of the time of a video
TOGETHER, TOGETHER_BYTES = 8, 4 << 20
MAX_OUTPUT = 96 << 20  # bytes; about 20 minutes, held in memory until the video is done


@dataclass(frozen=True)
class Transcoded:
    """An encoded video, the facts found by decoding it back, what its source was, and what was done to it.

    Attributes:
        notes: "deinterlaced", "tone-mapped", "clock repaired", "rate raised": what is not as the source has it.
    """

    mp4: bytes
    facts: VideoFacts
    source: SourceFacts
    notes: tuple[str, ...] = ()


def transcode(file: BinaryIO, recipe: VideoFormat, start: float | None = None, end: float | None = None) -> Transcoded:
    """Convert one open, seekable file.

    Args:
        file: the source. Only this object is read: no name in the file is ever opened.
        recipe: the output.
        start, end: the part to keep, seconds from the first frame; None is the whole video.

    Raises:
        BadVideo: with the reason for the quarantine list.
    """
    with VideoSource(file) as source:
        try:
            _check_pixels(source.facts, recipe)
            if recipe.codec == "copy":
                return _copy(source, recipe, start, end)
            try:
                return _convert(source, recipe, output_rate(recipe.fps, source.rate), start, end)
            except _TooSlow as slow:
                source.rewind()
                done = _convert(source, recipe, slow.fps, start, end)
                return Transcoded(done.mp4, done.facts, done.source, (*done.notes, "rate raised"))
        except _TooSlow as slow:
            raise BadVideo("timestamps", str(slow)) from slow
        except av.error.MemoryError as error:
            raise MemoryError from error
        except av.FFmpegError as error:
            raise BadVideo("corrupt", first_line(error)) from error


class _TooSlow(Exception):
    """Frames would be lost at this rate, but not at ``fps``."""

    def __init__(self, problem: str, fps: Fraction):
        super().__init__(problem)
        self.fps = fps


def probe(file: BinaryIO) -> dict:
    """What the header of an open file says: ``codec``, ``width``, ``height``, ``fps``, ``seconds`` (None if unsaid).

    Raises:
        BadVideo: as ``transcode``, as far as the header shows.
    """
    try:
        quick = _header(file, decoders=False)
    except BadVideo:  # what refuses it is to have seen all there is
        return _header(file, decoders=True)
    return quick if quick["width"] and quick["height"] and quick["fps"] else _header(file, decoders=True)


def _header(file: BinaryIO, decoders: bool) -> dict:
    with VideoSource(file, decoders) as source:
        facts, seconds = source.facts, source.seconds
        if seconds is None and source.container.duration:
            seconds = Fraction(source.container.duration, av.time_base)
        return {
            "codec": facts.codec,
            "width": facts.width,
            "height": facts.height,
            "fps": facts.fps or None,
            "seconds": None if seconds is None else float(seconds),
        }


def _copy(source: VideoSource, recipe: VideoFormat, start: float | None, end: float | None) -> Transcoded:
    if start is not None or end is not None or recipe.max_seconds is not None:
        raise BadVideo("contract", "a part cannot be cut out without encoding it")
    facts = source.facts
    mp4, fps = remux(source.container, source.stream, recipe.gop)
    return Transcoded(mp4, check_video(mp4, gop=recipe.gop, fps=fps), facts)


def _convert(
    source: VideoSource, recipe: VideoFormat, fps: Fraction, start: float | None, end: float | None
) -> Transcoded:
    about, rate, notes = source.facts, source.rate, set()
    limit = None if end is None else end - (start or 0)
    if recipe.max_seconds is not None:
        limit = recipe.max_seconds if limit is None else min(limit, recipe.max_seconds)
    max_frames = None if limit is None else max(1, round(limit * fps))
    clock, frames = decoded(source, start, complete=max_frames is None)
    if not recipe.keep_interlaced:
        frames = deinterlaced(frames, source.stream, notes)
    resampled = ConstantRate(tick(source.stream), fps, clock.usual, start or 0.0, max_frames)
    pictures = Pictures(source.pixel_aspect, recipe.keep_hdr)
    encoder = _Encoder(recipe, fps, pictures)
    for k, frame in resampled.run(frames):
        encoder.add(k, frame)
    mp4 = encoder.finish()
    if recipe.fps is None:
        _refuse_losses(resampled, fps, rate)
    facts = check_video(mp4, gop=recipe.gop, fps=fps, frames=encoder.count, layers=recipe.layers, compare_layers=False)
    notes |= {"tone-mapped"} if pictures.hdr else set()
    notes |= {"clock repaired"} if clock.repairs else set()
    return Transcoded(mp4, facts, about, tuple(sorted(notes)))


def _refuse_losses(resampled: ConstantRate, fps: Fraction, rate: Fraction | None) -> None:
    """Every frame of a source has its place in the output, unless the output's rate says that it cannot."""
    denser = resampled.denser_rate(rate)
    if denser is None:
        return
    faster = output_rate(None, denser)
    lost = f"{resampled.lost} of {resampled.seen} frames would be left out at {float(fps):g} fps"
    if faster <= fps:
        raise BadVideo("timestamps", f"{lost}: their times are too close together")
    raise _TooSlow(lost, faster)


def _check_pixels(facts: SourceFacts, recipe: VideoFormat) -> None:
    if facts.width * facts.height > recipe.max_megapixels * 1e6:
        raise BadVideo("too_large", f"{facts.width}x{facts.height} is more than {recipe.max_megapixels:g} megapixels")


class _Encoder:
    """Scales and encodes frames into a fragmented MP4 in memory; built on the first frame."""

    def __init__(self, recipe: VideoFormat, fps: Fraction, pictures: Pictures):
        self.recipe, self.fps, self.count = recipe, fps, 0
        self._clock = 1 / fps
        self._pictures, self._buffer = pictures, io.BytesIO()
        self._stream: av.video.stream.VideoStream | None = None
        self._last: tuple[av.VideoFrame, av.VideoFrame] | None = None
        self._waiting: deque[av.VideoFrame] = deque()
        # B-frames are decoded one frame later than shown
        self._delay, self._packets = int(recipe.layers == 2 and recipe.codec != "vp9"), 0

    def add(self, k: int, frame: av.VideoFrame) -> None:
        if self._stream is None:
            self._stream = self._start(frame)
        if self._last is None or self._last[0] is not frame:  # a repeated frame is scaled once
            self._last = (frame, self._pictures.yuv(frame, self._size))
        self._waiting.append(self._last[1])
        if len(self._waiting) > self._together:
            self._encode(len(self._waiting) - 1)

    def finish(self) -> bytes:
        assert self._stream is not None, "a video has at least one frame"
        self._encode(len(self._waiting), ends=True)
        for packet in self._stream.encode(None):
            self._mux(packet)
        self._container.close()
        return self._buffer.getvalue()

    def _encode(self, frames: int, ends: bool = False) -> None:
        """Encode some waiting frames; of the one that waits last it is not known whether another one follows."""
        stream = self._stream
        assert stream is not None, "`add` comes first"
        for k in range(frames):
            out, number = self._waiting.popleft(), self.count
            self.count += 1
            out.pts, out.time_base = number, self._clock
            # without a type of ours, the source's own picture types would force key frames where it had them
            key = number % self.recipe.gop == 0
            if self.recipe.codec == "vp9":
                out.pict_type = PictureType.I if key else PictureType.NONE
            else:
                last = ends and k == frames - 1
                out.pict_type = picture_type(number, self.recipe.gop, self.recipe.layers, last)
            for packet in stream.encode(out):
                self._mux(packet)

    def _mux(self, packet: av.Packet) -> None:
        # the order of decoding is ours: x265 reads a time that it never wrote when a video ends before its delay
        packet.dts, packet.duration, self._packets = self._packets - self._delay, 1, self._packets + 1
        self._container.mux(packet)
        if self._buffer.tell() > MAX_OUTPUT:
            seconds = float(self.count / self.fps)
            raise BadVideo(
                "too_long", f"its first {seconds:.0f} s fill {MAX_OUTPUT >> 20} MB; cut it, or pass --max-seconds"
            )

    def _start(self, frame: av.VideoFrame) -> av.video.stream.VideoStream:
        recipe = self.recipe
        self._size = size = output_size(*self._pictures.shown_size(frame), recipe.short_side)
        self._together = max(1, min(TOGETHER, TOGETHER_BYTES // (size[0] * size[1] * 3 // 2)))
        self._container = open_fragmented(self._buffer)
        quality = meant_quality(recipe.codec, recipe.quality)
        assert quality is not None, "what is encoded has a quality"
        stream = self._container.add_stream(
            ENCODERS[recipe.codec], rate=self.fps, options=encoder_options(recipe, quality)
        )
        assert isinstance(stream, av.video.stream.VideoStream)  # every codec of ENCODERS is one of pictures
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self._clock
        context.gop_size = recipe.gop
        context.max_b_frames = self._delay
        context.thread_count = 1
        context.color_range = ColorRange.MPEG
        context.colorspace = BT601
        return stream


def named_quality(codec: str, quality: int | None) -> int | None:
    """The quality as a recipe says it: None where that means the same, so that plans of before go on.

    Args:
        codec: h264, hevc, vp9 or copy.
        quality: constant rate factor; None is the default.
    """
    wanted = QUALITY.get(codec) if quality is None else quality
    return None if wanted == _UNSAID.get(codec) else wanted


def meant_quality(codec: str, named: int | None) -> int | None:
    """The constant rate factor that a recipe means; None for copy."""
    return _UNSAID.get(codec) if named is None else named


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

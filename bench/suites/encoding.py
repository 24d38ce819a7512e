"""`unstill bench encoding`: what layers and the entropy coder of H.264 cost in bytes, and save in decoding time.

Every video is encoded by the converter at several qualities. Sizes are compared at equal PSNR of the luma (between
qualities the logarithm of the size is taken as linear), decoding in CPU time on one thread, settings in turns. The
other codecs are compared with H.264 as each is by default.
"""

import io
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from ...pipeline.conversion.convert import ConvertConfig
from ...pipeline.conversion.transcode import QUALITY, transcode
from ...pipeline.loading.encoded_batch import SliceTable
from ...pipeline.loading.frame_decoder import KeptDecoders, decoded_frames, decoder_parameters
from ...pipeline.media.pictures import Pictures
from ...pipeline.media.source import VideoSource, decoded
from ...pipeline.options import at_least, check_files, check_options
from ...pipeline.progress import Progress
from ...pipeline.shards.fragments import fragment_table
from ...pipeline.shards.plain_mp4 import needed_samples, plain_mp4
from ...pipeline.shards.sample_table import parse_fragments, parse_header
from ...pipeline.shards.video_format import Codec, VideoFormat, output_size
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Row
from ..harness.section import Section
from ..harness.synthetic_videos import synthetic_video

SETTINGS = {
    "one layer, CABAC": {"layers": 1, "entropy": "cabac"},
    "one layer, CAVLC": {"layers": 1, "entropy": "cavlc"},
    "layers, CABAC": {"layers": 2, "entropy": "cabac"},
    "layers, CAVLC": {"layers": 2, "entropy": "cavlc"},
}
QUALITIES = (QUALITY["h264"] - 4, QUALITY["h264"], QUALITY["h264"] + 4)
OTHERS: dict[Codec, str] = {"hevc": "HEVC", "vp9": "VP9"}
CLIP_FRAMES, STRIDE = 16, 2
COMPARED = (  # what a README line says, over what
    ("layers, CAVLC", "layers, CABAC"),
    ("layers, CABAC", "one layer, CABAC"),
    ("layers, CAVLC", "one layer, CABAC"),
)

SECTIONS = {
    "encoding": Section(
        title="Encoding: layers, entropy coder, codecs",
        text="Bytes at equal quality, and the time to decode a clip of every second frame; other codecs by default.",
        order=22,
        charts={},
    )
}


@dataclass(frozen=True, kw_only=True)
class EncodingBench:
    """Compare the converter's settings for H.264 at equal quality, and its codecs as they are by default."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    videos: tuple[Path, ...] = ()
    """Your own videos, measured beside a synthetic one."""
    frames: int = 240
    """Frames of a video that are used, at most."""
    rounds: int = 5
    """Times every clip is decoded, settings in turns."""

    def __post_init__(self):
        check_options(self, frames=at_least(2), rounds=at_least(1))
        check_files("videos", self.videos)


@dataclass(frozen=True)
class _Encoded:
    """One video in one setting.

    Attributes:
        mp4: at the usual quality.
        sizes: bytes by quality.
        psnr: dB by quality, of all frames and of those that a clip of every second frame shows.
    """

    mp4: bytes
    sizes: list[int]
    psnr: dict[str, list[float]]


def run(config: EncodingBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    crf = ", ".join(map(str, QUALITIES))
    notes = [
        f"x264 as the converter runs it (veryfast, GOP 12), CRF {crf}; first {config.frames} frames of each video; "
        "median over videos, p20 to p80 over videos"
    ]
    results = ResultFile("encoding", out=config.out, notes=notes)
    with tempfile.TemporaryDirectory() as temporary:
        synthetic = Path(temporary) / "synthetic.mp4"
        synthetic_video(synthetic, min(config.frames, 120), 256, 336, seed=0)
        videos = [synthetic, *config.videos]
        found, clips, others = [], [], []
        with Progress("encoding", len(videos) * (len(SETTINGS) + 1), "encodes") as progress:
            for path in videos:
                reference, recipe = _reference(path, config.frames)
                encoded = {}
                for name, options in SETTINGS.items():
                    encoded[name] = _encode(path, replace(recipe, **options), reference)
                    progress.advance(note=path.name)
                found.append(encoded)
                clips.append(_clip_seconds(encoded, config.rounds))
                others.append(_by_default(path, recipe, reference))
                progress.advance(note=path.name)
    results.note("videos: synthetic" + "".join(f", {path.name}" for path in config.videos))
    for ours, base in COMPARED:
        for which in ("all frames", "even frames"):
            ratios = [_size_ratio(encoded[ours], encoded[base], which) for encoded in found]
            results.add(size_row(ours, base, which, quantiles(ratios)))
        results.add(decode_row(ours, base, quantiles([each[ours] / each[base] for each in clips])))
    for codec in OTHERS:
        against = [(each[codec], each["h264"]) for each in others]
        results.add(*codec_rows(codec, [(own[0] / usual[0], own[1] - usual[1]) for own, usual in against]))
    results.show("encoding")
    return results.finish()


def size_row(ours: str, base: str, which: str, ratio: dict[str, float]) -> Row:
    """Bytes over bytes at equal PSNR."""
    title = f"size at equal PSNR of {which}: {ours} / {base}"
    return Row(title=title, **spread(ratio), unit="times", better="lower", facts={"measure": "size", "frames": which})


def codec_rows(codec: Codec, found: list[tuple[float, float]]) -> list[Row]:
    """A codec as it is by default, against H.264: (bytes over bytes, PSNR less PSNR) of each video."""
    title, facts = f"{OTHERS[codec]} by default", {"measure": "codec", "codec": codec}
    sizes, decibels = (quantiles(list(values)) for values in zip(*found, strict=True))
    return [
        Row(title=f"{title}: size / H.264", **spread(sizes), unit="times", better="lower", facts=facts),
        Row(title=f"{title}: PSNR above H.264", **spread(decibels), unit="dB", better="higher", facts=facts),
    ]


def decode_row(ours: str, base: str, ratio: dict[str, float]) -> Row:
    """CPU time over CPU time of decoding the frames that a clip needs."""
    title = f"decoding a {CLIP_FRAMES}x{STRIDE} clip, CPU time: {ours} / {base}"
    return Row(title=title, **spread(ratio), unit="times", better="lower", facts={"measure": "decode"})


def _reference(path: Path, frames: int) -> tuple[list[np.ndarray], VideoFormat]:
    """The luma of the frames that the encoder is given, and a recipe that takes just these."""
    luma = []
    with open(path, "rb") as file, VideoSource(file) as source:
        pictures, rate = Pictures(source.pixel_aspect, False), source.rate
        assert rate is not None, f"{path} says no rate"
        for timed in decoded(source, complete=False)[1]:
            size = output_size(*pictures.shown_size(timed.frame), ConvertConfig.short_side)
            luma.append(_luma(pictures.yuv(timed.frame, size)))
            if len(luma) == frames:
                break
    recipe = ConvertConfig(source="", out="", codec="h264").recipe()
    return luma, replace(recipe, fps=float(rate), max_seconds=float(len(luma) / rate))


def _luma(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width].astype(np.float32)


def _encode(path: Path, recipe: VideoFormat, reference: list[np.ndarray]) -> _Encoded:
    sizes, psnr, usual = [], {"all frames": [], "even frames": []}, b""
    for quality in QUALITIES:
        with open(path, "rb") as file:
            mp4 = transcode(file, replace(recipe, quality=quality)).mp4
        frames = _psnr(mp4, reference)
        for which, step in (("all frames", 1), ("even frames", 2)):
            psnr[which].append(float(np.mean(frames[::step])))
        sizes.append(len(mp4))
        usual = mp4 if quality == QUALITY["h264"] else usual
    return _Encoded(usual, sizes, psnr)


def _psnr(mp4: bytes, reference: list[np.ndarray]) -> np.ndarray:
    """dB of the luma of each frame."""
    with av.open(io.BytesIO(mp4), "r") as container:
        errors = [
            float(((_luma(frame) - wanted) ** 2).mean())
            for frame, wanted in zip(container.decode(video=0), reference, strict=False)
        ]
    return 10 * np.log10(255**2 / np.maximum(errors, 1e-9))


def _by_default(path: Path, recipe: VideoFormat, reference: list[np.ndarray]) -> dict[Codec, tuple[int, float]]:
    """Bytes and PSNR of a video in each codec, with nothing but the codec chosen."""
    found: dict[Codec, tuple[int, float]] = {}
    for codec in ("h264", *OTHERS):
        usual = ConvertConfig(source="", out="", codec=codec).recipe()
        with open(path, "rb") as file:
            mp4 = transcode(file, replace(usual, fps=recipe.fps, max_seconds=recipe.max_seconds)).mp4
        found[codec] = (len(mp4), float(np.mean(_psnr(mp4, reference))))
    return found


def _size_ratio(ours: _Encoded, base: _Encoded, which: str) -> float:
    """Bytes at the PSNR that ``base`` has at the usual quality, over its bytes."""
    at = base.psnr[which][1]
    order = np.argsort(ours.psnr[which])
    logs = np.log(ours.sizes)[order]
    return float(np.exp(np.interp(at, np.array(ours.psnr[which])[order], logs)) / base.sizes[1])


def _clip_seconds(encoded: dict[str, _Encoded], rounds: int) -> dict[str, float]:
    """CPU seconds of decoding what the clips of a video need, the median over rounds."""
    slices = {name: _slices(each.mp4, SETTINGS[name]["layers"]) for name, each in encoded.items()}
    spent: dict[str, list[float]] = {name: [] for name in slices}
    kept = KeptDecoders(16)
    for turn in range(rounds + 1):
        for name, clips in slices.items():
            begin = time.process_time()
            for mp4, table in clips:
                context = kept.context("h264", decoder_parameters(table.track.description))
                for _ in decoded_frames(context, mp4, table):
                    pass
            if turn:  # the first warms up
                spent[name].append(time.process_time() - begin)
    return {name: float(np.median(seconds)) for name, seconds in spent.items()}


def _slices(mp4: bytes, layers: int) -> list[tuple[np.ndarray, SliceTable]]:
    """The slices that the loader would cut for clips from every GOP on."""
    data, gop = np.frombuffer(mp4, np.uint8), ConvertConfig.gop
    init_bytes, ends = fragment_table(mp4)
    track = parse_header(mp4[:init_bytes])
    samples = parse_fragments(mp4, init_bytes, ends[1:].tolist(), 0, gop)
    found, reach = [], STRIDE * (CLIP_FRAMES - 1)
    for start in range(0, max(1, len(samples.frame) - reach), gop):
        last = min(start + reach, len(samples.frame) - 1)
        wanted = [min(start + STRIDE * k, last) for k in range(CLIP_FRAMES)]
        kept = [k for k in needed_samples(samples, wanted, layers) if samples.frame[k] >= start]
        cut, numbers = plain_mp4(track, data, samples, kept)
        shown = [numbers.index(samples.frame[k]) for k in kept]
        found.append((cut, SliceTable(track, [samples.size[k] for k in kept], shown)))
    return found

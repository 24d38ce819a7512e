"""Broken and strange media: each is converted, or quarantined with its reason; the counts add up."""

import csv
import io
import json
import os
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from unstill.pipeline.conversion.convert import convert
from unstill.pipeline.conversion.verify import verify
from unstill.pipeline.shards.fragments import fragment_table
from unstill.pipeline.shards.index import SampleIndex


def pictures(frames: int, height: int, width: int) -> np.ndarray:
    t, y, x = np.arange(frames)[:, None, None], np.arange(height)[:, None], np.arange(width)
    grey = 127 + 60 * np.sin(0.2 * x + 0.4 * t) + 40 * np.cos(0.15 * y)
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def encode(
    frames=24, height=48, width=64, *, container="mp4", codec="libx264", pix_fmt="yuv420p", rate=30, times=None,
    options=None, index_first=False, fragments=False, audio=False, rotate=0, aspect=None,
) -> bytes:  # fmt: skip
    file = io.BytesIO()
    layout = {"moov_size": "4000"} if index_first else {"movflags": "frag_keyframe+empty_moov"} if fragments else {}
    with av.open(file, "w", format=container, options=layout) as out:
        options = {"preset": "ultrafast", "g": "6"} if options is None and codec == "libx264" else options
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        stream.codec_context.thread_count = 1
        if rotate:
            stream.set_display_rotation(rotate)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        sound = out.add_stream("aac", rate=16000, layout="mono") if audio else None
        for number, picture in enumerate(pictures(frames, height, width)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number if times is None else times[number], Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound:
            for packet in tone(sound, frames / rate):
                out.mux(packet)
    return file.getvalue()


def tone(stream, seconds: float):
    samples = np.zeros((1, 1024), np.float32)
    for number in range(int(seconds * 16000 / 1024) + 1):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, number * 1024, Fraction(1, 16000)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def audio_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        for packet in tone(out.add_stream("aac", rate=16000, layout="mono"), 1.0):
            out.mux(packet)
    return file.getvalue()


def flipped(data: bytes, start: int, count: int, seed=0) -> bytes:
    data, rng = bytearray(data), np.random.default_rng(seed)
    for position in rng.integers(start, len(data), count):
        data[position] ^= int(rng.integers(1, 256))
    return bytes(data)


def size_change() -> bytes:
    """One stream whose pictures become wider half way."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as out:
        stream = out.add_stream("libx264", rate=30, options={"tune": "zerolatency"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        wider = av.CodecContext.create("libx264", "w")
        wider.options = {"tune": "zerolatency"}
        wider.height, wider.width, wider.pix_fmt, wider.time_base = 48, 96, "yuv420p", Fraction(1, 30)
        for number in range(20):
            encoder = stream.codec_context if number < 10 else wider
            frame = av.VideoFrame(encoder.width, 48, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            for packet in encoder.encode(frame) + (encoder.encode(None) if number in (9, 19) else []):
                packet.stream = stream
                out.mux(packet)
    return file.getvalue()


def lying_dimensions() -> bytes:
    """An MP4 whose header and bitstream say 8192 x 8192 (few bytes: a flat picture)."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "50"})
        stream.height = stream.width = 8192
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame(8192, 8192, "yuv420p")
        frame.pts, frame.time_base = 0, Fraction(1, 30)
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def kinds() -> dict[str, tuple[bytes, tuple[str, ...] | int]]:
    """File name -> (content, what must become of it: the frame count, or the reasons allowed)."""
    good, fast = encode(), encode(index_first=True)
    avi = encode(90, container="avi", codec="mpeg4", options={"q:v": "2"})
    fragmented = encode(fragments=True)
    header_alone = fragmented[: fragment_table(fragmented)[0]]
    page = b"<!DOCTYPE html><html><body>404</body></html>" * 40
    return {
        "good.mp4": (good, 24),
        "empty.mp4": (b"", ("empty",)),
        "one_byte.mp4": (b"\0", ("unreadable",)),
        "random.mp4": (np.random.default_rng(0).bytes(20_000), ("unreadable",)),
        "zeros.avi": (bytes(20_000), ("unreadable",)),
        "page.mp4": (page, ("unreadable",)),
        "header_alone.mp4": (fast[:40], ("unreadable",)),
        "half.mp4": (fast[: len(fast) // 2], ("truncated",)),
        "half.mkv": (encode(container="matroska")[:-3000], ("truncated", "corrupt")),
        "half.avi": (avi[: len(avi) * 3 // 4], ("truncated", "corrupt")),
        "missing_moov.mp4": (good[: good.rindex(b"moov") - 4], ("unreadable",)),
        "flipped.mp4": (flipped(fast, len(fast) // 3, 200), ("corrupt", "truncated", "timestamps")),
        "zero_mdat.mp4": (fast[: len(fast) // 3] + bytes(len(fast) - len(fast) // 3), ("corrupt", "truncated")),
        "audio_only.mp4": (audio_only(), ("no_video",)),
        "no_frames.mp4": (header_alone, ("no_frames",)),
        "one_frame.mp4": (encode(frames=1), 1),
        "with_sound.mp4": (encode(audio=True), 24),
        "variable_rate.mp4": (encode(6, times=[0, 1, 2, 10, 11, 30]), None),
        "rotated.mp4": (encode(rotate=90, width=96), 24),
        "odd_size.mp4": (encode(height=51, width=67, codec="mpeg4", container="mov"), 24),
        "wide_pixels.mp4": (encode(aspect=Fraction(2)), 24),
        "8k.mp4": (lying_dimensions(), ("too_large",)),
        "wrong_suffix.avi": (encode(container="matroska"), 24),
        "ten_bit.mp4": (encode(pix_fmt="yuv420p10le"), 24),
        "full_colour.mp4": (encode(pix_fmt="yuv444p"), 24),
        "full_range.mp4": (encode(pix_fmt="yuvj420p"), 24),
        "b_frames.mp4": (encode(options={"preset": "veryfast", "bf": "3"}), 24),
        "size_change.mp4": (size_change(), ("size_change",)),
        "two_recordings.ts": (encode(container="mpegts") + encode(container="mpegts"), ("corrupt", "timestamps")),
        "stream.ts": (encode(container="mpegts"), 24),
        "mpeg2.mpg": (encode(container="mpeg", codec="mpeg2video", rate=25), 24),
        "h263.flv": (encode(container="flv", codec="flv"), 24),
        "picture.mp4": (
            encode(frames=1, container="image2pipe", codec="png", pix_fmt="rgb24"),
            ("not_allowed", "unreadable"),
        ),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", ("not_allowed", "unreadable")),
        "concat.mp4": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", ("not_allowed",)),
        "hour_gap.mp4": (encode(6, times=[0, 1, 2, 3, 108000, 108001]), ("timestamps",)),
        "naïve \n 'name'.mp4": (good, 24),
    }


def test_large_files_are_not_even_opened(convert_config, tmp_path):
    (tmp_path / "source" / "c").mkdir(parents=True)
    (tmp_path / "source" / "c" / "small.mp4").write_bytes(encode(4))
    (tmp_path / "source" / "c" / "large.mp4").write_bytes(bytes(200_000))
    report = convert(convert_config(tmp_path / "source", tmp_path / "out", max_file_mb=0.1))
    assert report.reasons == {"too_large": 1} and report.converted == 1


@pytest.mark.slow
def test_every_kind_of_media_has_its_fate(convert_config, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "c").mkdir(parents=True)
    expected = kinds()
    for name, (data, _) in expected.items():
        (source / "c" / name).write_bytes(data)
    os.symlink(tmp_path / "nowhere.mp4", source / "c" / "dead_link.mp4")
    expected["dead_link.mp4"] = (b"", ("missing",))

    report = convert(convert_config(source, out, samples_per_shard=16))

    with open(out / "quarantine.csv", newline="") as file:
        reasons = {row["path"].encode().decode("unicode_escape"): row["reason"] for row in csv.DictReader(file)}
    reasons = {path.removeprefix("c/"): reason for path, reason in reasons.items()}
    index = SampleIndex.load(out)
    frames = {about["source"]: about["frames"] for about in abouts(out)}
    fates = {name: reasons.get(name) or frames.get(f"c/{name}") for name in expected}
    wrong = {
        name: fates[name]
        for name, (_, want) in expected.items()
        if not (fates[name] in want if isinstance(want, tuple) else fates[name] == want if want else fates[name])
    }
    assert wrong == {}
    assert report.planned == len(expected) == report.converted + report.quarantined
    assert (report.converted, report.quarantined) == (len(index), len(reasons))
    assert verify(out) == []


def abouts(out: Path):
    for path in sorted((out / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    yield json.load(tar.extractfile(member))

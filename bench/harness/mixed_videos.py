"""Many small videos as people have them: containers, codecs, sizes and rates in a mixture, some of them broken."""

import io
import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

KINDS = (  # suffix, container, encoder, options
    ("mp4", "mp4", "libx264", {"preset": "ultrafast"}),
    (
        "mp4",
        "mp4",
        "libx265",
        {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    ),
    ("mp4", "mp4", "mpeg4", {}),
    ("mov", "mov", "mjpeg", {}),
    ("mkv", "matroska", "libx264", {"preset": "ultrafast", "bf": "2"}),
    ("mkv", "matroska", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "row-mt": "0"}),
    ("webm", "webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    ("avi", "avi", "mpeg4", {}),
    ("avi", "avi", "mjpeg", {}),
    ("mpg", "mpeg", "mpeg2video", {"bf": "2"}),
    ("ts", "mpegts", "libx264", {"preset": "ultrafast", "bf": "2"}),
    ("flv", "flv", "libx264", {"preset": "ultrafast"}),
)
SIZES = ((64, 48), (64, 80), (80, 48), (66, 50), (96, 54), (32, 32))  # not 48x64: x265 damages its memory
RATES = (Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(24))
FAULTS = ("cut short", "bytes changed", "empty", "text", "only the header", "noise")
LEFT_OUT = ("notes.txt", "thumbs.jpg", ".hidden.mp4", "README")
EVERY = 10  # of so many videos one is broken
CLASSES = 8


def mixed_videos(folder: Path, count: int, seed: int = 0) -> Counter:
    """Write ``count`` videos into class folders, and files that are none.

    Returns:
        How many files there are of each kind; ``left out`` are those that are no videos.
    """
    draw, made = random.Random(seed), Counter()
    for number in range(count):
        suffix, container, encoder, options = KINDS[number % len(KINDS)]
        rate = Fraction(25) if container == "mpeg" else draw.choice(RATES)
        data = _video(container, encoder, options, draw.choice(SIZES), draw.randint(4, 16), rate, number)
        kind = f"{suffix} {encoder}"
        if number % EVERY == EVERY - 1:
            kind = FAULTS[number // EVERY % len(FAULTS)]
            data = _broken(data, kind, draw)
        path = folder / f"class_{number % CLASSES}" / f"{number:05d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        made[kind] += 1
    for path in _others(folder):
        path.write_bytes(b"not a video")
        made["left out"] += 1
    return made


def _others(folder: Path) -> Iterator[Path]:
    for number in range(CLASSES):
        for name in LEFT_OUT:
            yield folder / f"class_{number}" / name
    yield folder / "stray.mp4"


def _video(
    container: str, encoder: str, options: dict, size: tuple[int, int], frames: int, rate: Fraction, seed: int
) -> bytes:
    file, (width, height) = io.BytesIO(), size
    random_colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    texture = np.kron(random_colours, np.ones((height // 4 + 8, width // 4 + 8, 1), np.uint8))
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(encoder, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for k in range(frames):
            picture = np.ascontiguousarray(texture[k : k + height, k : k + width])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def _broken(data: bytes, fault: str, draw: random.Random) -> bytes:
    if fault == "cut short":
        return data[: len(data) * 3 // 5]
    if fault == "bytes changed":
        changed = bytearray(data)
        for _ in range(24):
            changed[draw.randrange(len(data) // 3, len(data))] ^= 0xFF
        return bytes(changed)
    if fault == "only the header":
        return data[:200]
    return {"empty": b"", "text": b"404 Not Found\n" * 20, "noise": draw.randbytes(2000)}[fault]

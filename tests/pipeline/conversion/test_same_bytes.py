"""The same video and settings give the same bytes: whatever memory held before, whatever instructions a CPU has."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

# widths that are no multiple of 64 are those that x264's macroblock tree got wrong
SOURCES = {
    "340x256": ("mpeg4", "avi", {"q:v": "3"}),
    "320x240": ("libx264", "mp4", {"preset": "ultrafast", "crf": "18"}),
    "426x240": ("mpeg2video", "mpeg", {"q:v": "3"}),
    "456x256": ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"}),
    "498x400": ("mjpeg", "avi", {"q:v": "3"}),
    "352x288": ("mpeg2video", "mpeg", {"q:v": "3", "flags": "+ildct+ilme"}),  # interlaced
    "96x64": ("mpeg4", "avi", {"q:v": "3"}),  # of one frame: it ends before any encoder's delay
}
RUNS = [("0", "all"), ("1", "all"), ("170", "avx2"), ("85", "ssse3"), ("255", "none")]  # MALLOC_PERTURB_, LEVELS


def panning_blocks(width: int, height: int, count: int, seed: int) -> np.ndarray:
    """uint8 (count, height, width, 3): blocks that pan and change once, with noise."""
    rng = np.random.default_rng(seed)
    big = rng.integers(0, 255, (height // 8 + 16, width // 8 + 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    parts = [np.roll(big, k // (count // 2 + 1) * 40, 0)[k : k + height, 2 * k : 2 * k + width] for k in range(count)]
    noise = rng.integers(-6, 7, (count, height, width, 1))
    return np.clip(np.stack(parts).astype(np.int16) + noise, 0, 255).astype(np.uint8)


def write_source(path: Path, size: str, codec: str, container: str, options: dict) -> None:
    width, height = map(int, size.split("x"))
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(panning_blocks(width, height, 1 if size == "96x64" else 15, len(path.name))):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def digests(folder: Path, fill: str, level: str) -> dict[str, str]:
    command = [sys.executable, str(Path(__file__).with_name("encoding_digests.py")), str(folder), level]
    environment = {**os.environ, "MALLOC_PERTURB_": fill, "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_bytes_depend_on_the_video_and_the_settings_alone(tmp_path):
    for size, (codec, container, options) in SOURCES.items():
        write_source(tmp_path / f"{size}.{container}", size, codec, container, options)
    with ThreadPoolExecutor(2) as threads:
        first, *others = threads.map(lambda run: digests(tmp_path, *run), RUNS)
    assert len(first) == 30
    differing = {
        run: [name for name in first if first[name] != other[name]] for run, other in zip(RUNS[1:], others, strict=True)
    }
    assert not any(differing.values()), differing

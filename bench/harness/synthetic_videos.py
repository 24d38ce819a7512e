"""Videos that anyone can make again: a panning texture, moving squares and sensor noise, converted into shards."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np

from ...pipeline.conversion.convert import ConvertConfig, convert
from ...pipeline.progress import Progress
from ...pipeline.shards.video_format import Codec

CLASSES = 4


def synthetic_video(path: Path, frames: int, height: int, width: int, seed: int) -> None:
    """Write one H.264 file of 30 frames/s at near-lossless quality."""
    random = np.random.default_rng(seed)
    # a texture with detail at all scales, larger than the picture so that it can pan
    texture = sum(
        np.kron(random.normal(size=(2 * height // s + 1, 2 * width // s + 1, 3)), np.ones((s, s, 1)))[
            : 2 * height, : 2 * width
        ]
        for s in (2, 8, 32)
    )
    texture = np.clip(110 + 18 * texture, 0, 255)
    noise = random.normal(0, 2.5, (8, height, width, 1))
    squares = [(random.uniform(0, 1, 2), random.uniform(-0.01, 0.01, 2), random.uniform(0, 255, 3)) for _ in range(3)]
    side = height // 5
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "16"}
        for k in range(frames):
            dy, dx = int(k * 0.7) % height, int(k * 1.3) % width
            picture = texture[dy : dy + height, dx : dx + width] + noise[k % len(noise)]
            for place, speed, colour in squares:
                y, x = ((place + k * speed) % 1 * (height - side, width - side)).astype(int)
                picture[y : y + side, x : x + side] = colour
            image = np.clip(picture, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def synthetic_dataset(
    out: Path,
    *,
    videos: int,
    codec: Codec,
    frames: int = 250,
    height: int = 256,
    width: int = 336,
    gop: int = 12,
    **options: Any,
) -> Path:
    """Shards of synthetic videos made by the converter; kept in ``out`` and made only once.

    ``options`` go to ``ConvertConfig``.

    Raises:
        InputError: as ``convert``.
    """
    if not (out / "dataset.json").exists():
        with tempfile.TemporaryDirectory() as source, Progress("synthetic videos", videos, "videos") as progress:
            for n in range(min(CLASSES, videos)):
                (Path(source) / f"class_{n}").mkdir()
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy and the encoder release the interpreter's lock
                paths = [Path(source) / f"class_{n % CLASSES}" / f"{n:05d}.mp4" for n in range(videos)]
                render = lambda n: synthetic_video(paths[n], frames, height, width, seed=n)  # noqa: E731
                for _ in pool.map(render, range(videos)):
                    progress.advance()
            side = min(height, width)
            convert(ConvertConfig(source=source, out=out, codec=codec, short_side=side, gop=gop, **options))
    return out

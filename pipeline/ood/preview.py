"""A sheet of composites to look at before they are trusted."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..atomic_files import write_atomic
from ..sandbox.process import Sandbox
from .video_files import read_frames

ROWS, COLUMNS, HEIGHT = 12, 4, 96


def write_preview(path: Path, videos: Sequence[Path], sandbox: Sandbox = "auto") -> None:
    """Write a PNG: up to 12 videos, spread over the list, each a row of four frames from first to last."""
    picked = [videos[round(n)] for n in np.linspace(0, len(videos) - 1, min(ROWS, len(videos)))]
    rows = []
    for video in picked:
        frames, _ = read_frames(video, sandbox)
        width = max(1, round(HEIGHT * frames.shape[2] / frames.shape[1]))
        shown = [frames[round(t)] for t in np.linspace(0, len(frames) - 1, COLUMNS)]
        rows.append(np.hstack([np.asarray(Image.fromarray(frame).resize((width, HEIGHT))) for frame in shown]))
    sheet = np.full((HEIGHT * len(rows), max(row.shape[1] for row in rows), 3), 255, np.uint8)
    for n, row in enumerate(rows):
        sheet[n * HEIGHT : (n + 1) * HEIGHT, : row.shape[1]] = row
    data = io.BytesIO()
    Image.fromarray(sheet).save(data, format="png")
    write_atomic(path, data.getvalue())

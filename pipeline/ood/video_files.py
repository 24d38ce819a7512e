"""Reading whole videos as RGB frames, and writing composites so that little is lost before they are converted."""

from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from ..atomic_files import atomic_path
from ..conversion.sandbox.pictures import shown_frames
from ..errors import InputError
from ..sandbox.process import Sandbox

MOST_BYTES = 4 << 30  # of one video's frames: 1,500 frames of 1280x720


def read_frames(path: Path, sandbox: Sandbox = "auto") -> tuple[np.ndarray, Fraction]:
    """All frames, uint8 (T,H,W,3), as people see them, and the frames per second.

    Raises:
        InputError: not a readable video, a damaged one, one without frames, or one too large to be kept in memory.
    """
    frames, size = [], 0
    with shown_frames(path, sandbox=sandbox) as (shown, rate):
        for picture in shown:
            size += picture.nbytes
            if size > MOST_BYTES:
                raise InputError(f"{path}: its frames take more than {MOST_BYTES >> 30} GiB of memory; cut it")
            frames.append(picture)
    if not frames:
        raise InputError(f"{path}: a video without frames; remove or replace it")
    return np.stack(frames), rate


def write_frames(path: Path, frames: np.ndarray, rate: Fraction, quality: int) -> None:
    """Write H.264 with full colour resolution; the bytes depend only on the arguments.

    Args:
        path: where; the file gets its name when it is complete.
        frames: uint8 (T,H,W,3).
        rate: frames per second.
        quality: constant rate factor; 0 is lossless except for the rounding of colours.
    """
    options = {"crf": str(quality), "preset": "veryfast", "threads": "1"}
    with (
        atomic_path(path) as partial,
        av.open(str(partial), "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"  # odd sides and sharp edges of masks survive
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))

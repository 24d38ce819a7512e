"""Reading whole videos as RGB frames, and writing composites so that little is lost before they are converted."""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import av.error
import numpy as np

from ..atomic_files import atomic_path
from ..errors import InputError
from ..pyav import LENIENT


def read_frames(path: Path, most_seconds: float | None = None) -> tuple[np.ndarray, Fraction]:
    """All frames, uint8 (T,H,W,3), and the frames per second.

    Args:
        path: the video.
        most_seconds: stop a frame after so much of it: who wants to know whether it is longer need not hold all of it.

    Raises:
        InputError: not a readable video, or one without frames.
    """
    try:
        with av.open(str(path), **LENIENT) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.base_rate or Fraction(25)
            most = None if most_seconds is None else int(most_seconds * rate) + 1
            frames = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(stream), most)]
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise InputError(f"{path}: not a readable video ({error}); remove or replace it") from None
    if not frames:
        raise InputError(f"{path}: a video without frames; remove or replace it")
    return np.stack(frames), rate


def write_frames(path: Path, frames: np.ndarray, rate: Fraction, quality: int) -> None:
    """Write H.264 with full colour resolution; the bytes depend on nothing but the arguments.

    Args:
        path: where; the file gets its name when it is complete.
        frames: uint8 (T,H,W,3).
        rate: frames per second.
        quality: constant rate factor; 0 is lossless but for the rounding of colours.
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

"""Every frame of a video on this machine as an RGB picture, seen as ``unstill convert`` sees it."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from ..errors import InputError
from ..shards.quarantine import BadVideo
from .pictures import Pictures, deinterlaced
from .source import VideoSource, decoded, first_line


@contextmanager
def shown_frames(path: Path) -> Iterator[tuple[Iterator[np.ndarray], Fraction]]:
    """(pictures, frames per second).

    Each picture is uint8 (H, W, 3): upright, with square pixels, deinterlaced, without HDR.

    Raises:
        InputError: no such file, not a video of an allowed kind, damaged, or cut off; also while frames are taken.
    """
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{path}: not a plain file")
            with VideoSource(file) as source:
                _, frames = decoded(source)
                pictures = Pictures(source.pixel_aspect)
                shown = (pictures.rgb(frame) for _, frame in deinterlaced(frames, source.stream, set()))
                yield shown, source.rate or Fraction(25)
    except BadVideo as bad:
        raise InputError(f"{path}: cannot be used, {bad.reason}: {bad.detail}") from bad
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: cannot be decoded ({first_line(error)})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error

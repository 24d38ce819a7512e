"""Every frame of an open video as an RGB picture, seen as ``unstill convert`` sees it."""

from collections.abc import Container, Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from ..shards.quarantine import BadVideo
from .pictures import Pictures, deinterlaced
from .source import VideoSource, decoded

MOST_MEGAPIXELS = 40.0  # of one picture


def pictures(file: BinaryIO, wanted: Container[int] | None) -> Iterator[tuple[Fraction, np.ndarray | None]]:
    """(frames per second, picture) of every frame, in the order shown.

    Each picture is uint8 (H, W, 3): upright, with square pixels, deinterlaced, without HDR.

    Args:
        file: seekable; nothing else is opened.
        wanted: the numbers of the frames that are asked for, the others are None; None asks for all.

    Raises:
        BadVideo: not a video of an allowed kind, damaged, cut off, or with too large pictures.
        av.error.FFmpegError: it cannot be decoded.
    """
    with VideoSource(file) as source:
        facts = source.facts
        if facts.width * facts.height > MOST_MEGAPIXELS * 1e6:
            raise BadVideo("too_large", f"{facts.width}x{facts.height} is more than {MOST_MEGAPIXELS:g} megapixels")
        _, frames = decoded(source)
        form = Pictures(source.pixel_aspect)
        rate = source.rate or Fraction(25)
        for number, (_, frame) in enumerate(deinterlaced(frames, source.stream, set())):
            yield rate, form.rgb(frame) if wanted is None or number in wanted else None


def packet_count(file: BinaryIO) -> int:
    """Packets of the video, none of which is decoded.

    Raises:
        BadVideo: not a video of an allowed kind.
        av.error.FFmpegError: it cannot be read.
    """
    with VideoSource(file) as source:
        return sum(1 for packet in source.packets() if packet.size)

"""Temporal layers: odd frames that no other frame refers to, so that a clip of every second frame decodes half.

    one layer    I0 P1 P2 P3 ... P11 | I12 ...     every frame is needed by the next
    two layers   I0 b1 P2 b3 ... P10 P11 | I12     even frames are a stream of their own

The last frame of a GOP has none after it to refer to, so it is a P-frame; nothing refers to it either. GOPs are even,
or odd frames would be even ones in the next.
"""

from av.video.frame import PictureType


def picture_type(frame: int, gop: int, layers: int, last: bool) -> PictureType:
    """The type that the encoder is told to give a frame of H.264 or HEVC.

    Left to itself, x265 put the B-frames of 2 of 24 GOPs of a real video on even frames.

    Args:
        frame: its number.
        last: no frame follows it.
    """
    place = frame % gop
    if place == 0:
        return PictureType.I
    is_top = layers == 2 and place % 2 == 1 and place != gop - 1 and not last
    return PictureType.B if is_top else PictureType.P

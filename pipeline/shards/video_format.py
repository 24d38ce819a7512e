"""What a converted video looks like: codec, size, rate, GOP; and the arithmetic that fixes them for one source."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Codec = Literal["h264", "hevc", "vp9", "copy"]
Entropy = Literal["cavlc", "cabac"]

# Aspect ratios (long : short) that real videos have. A source within SNAP of one is stretched to it, which keeps the
# number of distinct sizes small: a hardware decoder session is rebuilt (50-70 ms on an H100) whenever the size changes.
ASPECTS = (Fraction(1), Fraction(5, 4), Fraction(4, 3), Fraction(3, 2), Fraction(16, 9), Fraction(2), Fraction(64, 27))
SNAP = Fraction(4, 100)
BLOCK = 16  # with both sides a multiple of it, coded size = shown size, on which DALI's decoder cache depends

RATES = tuple(map(Fraction, "10 12 25/2 15 20 24000/1001 24 25 30000/1001 30 48 50 60000/1001 60".split()))
MAX_RATE = 120


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """Everything that decides the bytes of one converted video (besides the encoder's version)."""

    codec: Codec
    short_side: int
    fps: float | None
    gop: int
    layers: int
    entropy: Entropy
    quality: int | None
    max_seconds: float | None
    max_megapixels: float
    max_file_mb: float
    keep_interlaced: bool
    keep_hdr: bool


def output_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height of the output: short side at most ``short_side``, both multiples of 16, never enlarged.

    Args:
        width, height: the source as shown (after rotation and with square pixels).

    A side below 16 pixels is the one exception to "never enlarged": 16 is the smallest block.
    """
    short, long = min(width, height), max(width, height)
    aspect = Fraction(long, short)
    nearest = min(ASPECTS, key=lambda a: abs(a - aspect))
    if abs(nearest - aspect) <= SNAP * nearest:
        aspect = nearest
    target = min(short_side, short)
    out_short = max(BLOCK, target // BLOCK * BLOCK)
    exact = target * aspect
    out_long = max(BLOCK, round(exact / BLOCK) * BLOCK)
    if out_long > max(long, BLOCK):
        out_long -= BLOCK
    out_long = max(out_long, out_short)
    return (out_long, out_short) if width >= height else (out_short, out_long)


def output_rate(fps: float | None, source: Fraction | None) -> Fraction:
    """Frames per second of the output as an exact fraction.

    ``fps`` wins; otherwise the source's average rate, taken as the standard rate it lies within 0.5 % of, or rounded
    to a hundredth. Rates above 120 are halved until they fit.
    """
    if fps is not None:
        ntsc = [r for r in RATES if r.denominator == 1001 and abs(r - Fraction(fps)) < Fraction(1, 200)]  # 29.97
        return ntsc[0] if ntsc else Fraction(fps).limit_denominator(1000)
    rate = source or Fraction(25)
    while rate > MAX_RATE:
        rate /= 2
    nearest = min(RATES, key=lambda r: abs(r - rate))
    if abs(nearest - rate) <= Fraction(5, 1000) * rate:
        return nearest
    return max(Fraction(1), Fraction(round(rate * 100), 100))

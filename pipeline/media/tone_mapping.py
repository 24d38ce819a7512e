"""High dynamic range and wide colour as pictures of a screen that has neither.

    code values -> light (PQ, HLG, or gamma 2.4) -> in units of reference white, 203 cd/m2 (ITU-R BT.2408)
    -> what is brighter than 0.7 rolled off, 0.7 + 0.3 (1 - exp(-(x - 0.7) / 0.3)), by the largest of the three colours
    -> BT.709 primaries, clipped -> gamma 1/2.4

All tables have 4096 entries and all sums are written out, so that the result does not depend on the CPU.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

PQ, HLG, BT2020 = 16, 18, 9  # transfer functions and primaries by their numbers in ITU-T H.273
REFERENCE_WHITE, PEAK = 203.0, 1000.0  # cd/m2; of HLG's nominal display
KNEE = 0.7  # of reference white
_LEVELS = 4096
_TO_709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))  # from BT.2020, linear
_LUMA = (0.2627, 0.6780, 0.0593)  # of BT.2020


def needs_mapping(transfer: int, primaries: int) -> bool:
    """Whether a frame with these tags is HDR or of wide colour."""
    return transfer in (PQ, HLG) or primaries == BT2020


def to_sdr(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """Map a picture.

    Args:
        rgb: uint16 (H, W, 3), non-linear BT.2020, full range.
        transfer: its transfer function (H.273).

    Returns:
        uint8 (H, W, 3), sRGB-like: BT.709 primaries, gamma 2.4, full range.
    """
    light = [_light_table(transfer)[rgb[..., c] >> 4] for c in range(3)]
    if transfer == HLG:  # the eye of the display: brightness by the luminance of the scene
        scene = np.asarray(sum(weight * part for weight, part in zip(_LUMA, light, strict=True)))
        gain = _system_gamma()[_index(scene)]
        light = [part * gain for part in light]
    if transfer in (PQ, HLG):
        brightest = np.maximum(np.maximum(light[0], light[1]), light[2])
        share = _roll_off()[_index(np.sqrt(brightest / (10_000 / REFERENCE_WHITE)))]
        light = [part * share for part in light]
    out = np.empty(rgb.shape, np.uint8)
    for c, row in enumerate(_TO_709):
        linear = row[0] * light[0] + row[1] * light[1] + row[2] * light[2]
        out[..., c] = _gamma()[_index(np.sqrt(np.clip(linear, 0, 1)))]
    return out


def _index(share: np.ndarray) -> np.ndarray:
    return np.minimum((share * (_LEVELS - 1) + 0.5).astype(np.int64), _LEVELS - 1)


def _table(function: Callable[[float], float], dtype: type[np.generic] = np.float64) -> np.ndarray:
    return np.array([function(k / (_LEVELS - 1)) for k in range(_LEVELS)], dtype)


@functools.cache
def _light_table(transfer: int) -> np.ndarray:
    """Code value -> light in units of reference white; of HLG the scene's, 0 to 1."""
    if transfer == PQ:  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128

        def light(code: float) -> float:
            root = code ** (1 / m2)
            return (max(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000 / REFERENCE_WHITE
    elif transfer == HLG:  # ARIB STD-B67
        a, b, c = 0.17883277, 0.28466892, 0.55991073

        def light(code: float) -> float:
            return code * code / 3 if code <= 0.5 else (math.exp((code - c) / a) + b) / 12
    else:

        def light(code: float) -> float:
            return code**2.4

    return _table(light)


@functools.cache
def _system_gamma() -> np.ndarray:
    """Scene luminance -> factor to light in units of reference white, for a display of 1000 cd/m2 (gamma 1.2)."""
    return _table(lambda scene: PEAK / REFERENCE_WHITE * scene**0.2)


@functools.cache
def _roll_off() -> np.ndarray:
    """Square root of light as a share of 10,000 cd/m2 -> factor that brings it below 1."""

    def factor(root: float) -> float:
        light = root * root * 10_000 / REFERENCE_WHITE
        if light <= KNEE:
            return 1.0
        return (KNEE + (1 - KNEE) * (1 - math.exp(-(light - KNEE) / (1 - KNEE)))) / light

    return _table(factor)


@functools.cache
def _gamma() -> np.ndarray:
    """Square root of linear light -> 8-bit code value."""
    return _table(lambda root: math.floor(255 * root ** (2 / 2.4) + 0.5), np.uint8)

"""The sinusoidal "stripe" backgrounds of SCUBA, with the constants of the published generator (StillMix, 2211.12883).

With each u an independent U(0,1), on a canvas of S = 384:

    background colour b ~ U(0,1)^3, stripes of colour 1 - b
    half width w = 5 + 15 u, spacing s = (3 + 2 u) w
    angular frequency W = 2 pi / (1000 u + 4), phase p = (200 u - 100) W, amplitude A = 10 + 100 u
    y(x) = A sin(W x + p) + 128, in the columns x where 0 < y < S
    a = int(max(0, y - w)), b = int(min(255, y + w)): paint rows [a, b)
    and copies [max(0, int(a +- k s)), int(b +- k s)) until they leave the canvas
    rotate by U(0,360) degrees, nearest neighbour; cut 256 x 256 out of the centre

The middle stripe stops at row 255, as published, though the canvas goes on, and so its copies are as short.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

CANVAS, SIDE = 384, 256
OFFSET, LAST_ROW = 128, 255


@dataclass(frozen=True)
class Stripes:
    """The numbers that make one picture; lengths in pixels, angles in degrees, colours in [0,1]."""

    colour: tuple[float, float, float]
    half_width: float
    spacing: float
    frequency: float
    phase: float
    amplitude: float
    angle: float


def draw_stripes(rng: np.random.Generator) -> Stripes:
    """Draw the numbers of one picture."""
    colour = tuple(rng.random(3).tolist())
    half_width = 5 + 15 * rng.random()
    spacing = (3 + 2 * rng.random()) * half_width
    frequency = 2 * np.pi / (1000 * rng.random() + 4)
    phase = (200 * rng.random() - 100) * frequency
    amplitude = 10 + 100 * rng.random()
    return Stripes(colour, half_width, spacing, frequency, phase, amplitude, 360 * rng.random())


def stripe_mask(stripes: Stripes) -> np.ndarray:
    """bool (384, 384): where stripes are painted, before rotation."""
    columns = np.arange(CANVAS)
    y = stripes.amplitude * np.sin(stripes.frequency * columns + stripes.phase) + OFFSET
    painted = np.zeros((CANVAS, CANVAS), bool)
    rows = np.arange(CANVAS)[:, None]
    # cut and rounded once; the copies are shifts of this
    first = np.maximum(0, y - stripes.half_width).astype(int)
    last = np.minimum(LAST_ROW, y + stripes.half_width).astype(int)
    reach = int(np.ceil((CANVAS + stripes.amplitude + OFFSET) / stripes.spacing)) + 1
    for k in range(-reach, reach + 1):
        shift = k * stripes.spacing
        painted |= (rows >= np.maximum(0, (first + shift).astype(int))) & (rows < (last + shift).astype(int))
    return painted & (y > 0) & (y < CANVAS)


def stripe_picture(stripes: Stripes) -> np.ndarray:
    """uint8 (256, 256, 3)."""
    colour = np.array(stripes.colour)
    picture = np.where(stripe_mask(stripes)[..., None], 1 - colour, colour)
    canvas = Image.fromarray((picture * 255).astype(np.uint8))
    turned = canvas.rotate(stripes.angle, resample=Image.Resampling.NEAREST, expand=True)
    left, top = (turned.width - SIDE) // 2, (turned.height - SIDE) // 2
    return np.asarray(turned.crop((left, top, left + SIDE, top + SIDE)))

"""The stripe generator against its published formula, pixel by pixel."""

import math

import numpy as np
import pytest

from unstill.pipeline.ood.stripes import CANVAS, SIDE, Stripes, draw_stripes, stripe_mask, stripe_picture


def painted(stripes: Stripes, row: int, column: int) -> bool:
    y = stripes.amplitude * math.sin(stripes.frequency * column + stripes.phase) + 128
    if not 0 < y < 384:
        return False
    w = stripes.half_width
    if int(max(0, y - w)) <= row < int(min(255, y + w)):
        return True
    for sign in (-1, 1):
        k = 1
        while True:
            centre = y + sign * k * stripes.spacing
            if centre + w <= 0 or centre - w >= 384:
                break
            if int(max(0, centre - w)) <= row < int(min(384, centre + w)):
                return True
            k += 1
    return False


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_formula(seed):
    stripes = draw_stripes(np.random.default_rng(seed))
    mask = stripe_mask(stripes)
    rng = np.random.default_rng(99)
    for row, column in rng.integers(0, CANVAS, (1500, 2)).tolist():
        assert mask[row, column] == painted(stripes, row, column), (row, column)
    assert 0.2 < mask.mean() < 0.8  # a stripe of 2w every 3w to 5w


def test_the_middle_stripe_alone_is_cut_at_row_255():
    stripes = Stripes((0, 0, 0), 20.0, 100.0, 2 * math.pi / 4e9, math.pi / 2, 110.0, 0.0)  # y = 238 everywhere
    rows = np.flatnonzero(stripe_mask(stripes)[:, 7])
    expected = [*range(18, 58), *range(118, 158), *range(218, 255), *range(318, 358)]
    assert rows.tolist() == expected


def test_constants_and_picture():
    found = [draw_stripes(np.random.default_rng(seed)) for seed in range(300)]
    assert all(5 <= s.half_width < 20 and 3 <= s.spacing / s.half_width < 5 for s in found)
    assert all(10 <= s.amplitude < 110 and 0 <= s.angle < 360 for s in found)
    assert all(2 * math.pi / 1004 <= s.frequency <= 2 * math.pi / 4 for s in found)
    assert all(abs(s.phase / s.frequency) <= 100 for s in found)
    for stripes in found[:5]:
        picture = stripe_picture(stripes)
        assert picture.shape == (SIDE, SIDE, 3) and picture.dtype == np.uint8
        colours = {tuple(c) for c in np.unique(picture.reshape(-1, 3), axis=0).tolist()}
        own = tuple((np.array(stripes.colour) * 255).astype(np.uint8).tolist())
        other = tuple(((1 - np.array(stripes.colour)) * 255).astype(np.uint8).tolist())
        assert colours <= {own, other}  # rotation leaves no black corners in the cut

"""The stripe generator against its published formula, pixel by pixel."""

import math

import numpy as np
import pytest

from unstill.pipeline.ood.stripes import SIDE, Stripes, draw_stripes, stripe_mask, stripe_picture


def released(stripes: Stripes) -> np.ndarray:
    """What the released generator paints, restated: the middle stripe is rounded to rows first, then shifted."""
    image = np.zeros((384, 384), bool)
    for column in range(384):
        y = stripes.amplitude * math.sin(stripes.frequency * column + stripes.phase) + 128
        if not 0 < y < 384:
            continue
        top, bottom = int(max(0, y - stripes.half_width)), int(min(255, y + stripes.half_width))
        image[top:bottom, column] = True
        for sign in (-1, 1):
            k = sign
            while (int(bottom + k * stripes.spacing) > 0) if sign < 0 else (int(top + k * stripes.spacing) < 384):
                first, last = int(top + k * stripes.spacing), int(bottom + k * stripes.spacing)
                image[max(0, first) : min(384, last), column] = True
                k += sign
    return image


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_the_released_generator(seed):
    stripes = draw_stripes(np.random.default_rng(seed))
    mask = stripe_mask(stripes)
    assert np.array_equal(mask, released(stripes))
    assert 0.2 < mask.mean() < 0.8  # a stripe of 2w every 3w to 5w


def test_the_middle_stripe_is_cut_at_row_255_and_its_copies_are_as_short():
    stripes = Stripes((0, 0, 0), 20.0, 100.0, 2 * math.pi / 4e9, math.pi / 2, 110.0, 0.0)  # y = 238 everywhere
    rows = np.flatnonzero(stripe_mask(stripes)[:, 7])
    expected = [*range(18, 55), *range(118, 155), *range(218, 255), *range(318, 355)]
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

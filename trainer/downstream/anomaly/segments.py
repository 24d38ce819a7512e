"""The 32 segments that a video's rows of features are averaged in, as two public training codes cut them."""

from itertools import pairwise

import numpy as np

SEGMENTS = 32
Bounds = list[tuple[int, int]]  # first and one-past-last row of each segment


def ranking_segments(rows: int) -> Bounds:
    """First and one-past-last row of 32 segments, as the code of Sultani et al. (CVPR 2018) cuts videos.

    Bounds are ``round(linspace(1, rows, 33))``, a half rounded up, and a segment ends before the next begins; one
    without rows is the row that it begins with. Their test for the last segment never holds, so that of a video of
    more than 17 rows the last row is in no segment.
    """
    at = np.floor(np.linspace(0, rows - 1, SEGMENTS + 1) + 0.5).astype(int).tolist()
    return [(first, max(end, first + 1)) for first, end in pairwise(at)]


def even_segments(rows: int) -> Bounds:
    """The same as RTFM's code cuts videos: bounds are ``floor(linspace(0, rows, 33))``."""
    at = np.linspace(0, rows, SEGMENTS + 1).astype(int).tolist()
    return [(first, max(end, first + 1)) for first, end in pairwise(at)]

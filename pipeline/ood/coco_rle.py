"""COCO run-length masks: {"size": [h, w], "counts": runs}, runs of zeros and ones in turn, column by column.

``counts`` is a list of lengths, or COCO's text: numbers in base 32, low digits first, each digit plus 48 with 32 added
where more follow, from the fourth run on as the difference to the run before the last.
"""

import numpy as np

_MOST_BITS = 35  # of one run: 7 digits


def decode_rle(rle: dict, shape: tuple[int, int]) -> np.ndarray:
    """bool (h,w).

    Args:
        rle: the mask, see above.
        shape: (h,w) that it must have; known before a byte of memory is asked for.

    Raises:
        ValueError: a mask of another size, the runs do not fill the picture, or the text is broken.
    """
    height, width = (int(side) for side in rle["size"])
    if (height, width) != shape:
        raise ValueError(f"a mask of {width} x {height} for frames of {shape[1]} x {shape[0]}")
    counts = rle["counts"]
    if isinstance(counts, bytes | str):
        counts = _runs(counts.encode() if isinstance(counts, str) else counts)
    try:
        runs = np.asarray(counts, np.int64).reshape(-1)
    except OverflowError:
        raise ValueError("a run of more than 63 bits") from None
    # one by one first: a sum could wrap around
    if ((runs < 0) | (runs > height * width)).any() or len(runs) > height * width + 2 or runs.sum() != height * width:
        raise ValueError(f"runs of {runs.sum()} pixels for a mask of {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _runs(text: bytes) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for byte in text:
        digit = byte - 48
        if not 0 <= digit < 64:
            raise ValueError(f"byte {byte} in a run-length text")
        value |= (digit & 31) << shift
        shift += 5
        if shift > _MOST_BITS:
            raise ValueError(f"a run of more than {_MOST_BITS} bits in a run-length text")
        if digit & 32:
            continue
        if digit & 16:  # the sign
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("a run-length text ends within a number")
    return runs

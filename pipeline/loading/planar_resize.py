"""A region of a decoded picture (its planes Y, U and V), resized and turned to RGB in one pass on the processor.

    plan = plan_region((256, 336), (34, 78, 182, 188), size=112, shift=(1, 1))
    resize_region((y, u, v), (384, 192), plan, full=False, out=packed_rows(112))

The filter is DALI's, that of ``resize.py``: a triangle of twice the step between output pixels that reaches beyond the
region up to the border of the picture. Chroma is interpolated between its pixels, each in the middle of the luma pixels
that it stands for, as DALI takes it.

Compiled by Numba for the processor at hand, once; the code is kept on disk. 182x188 pixels to 112x112 take 27 us of an
AMD EPYC; swscale, which has no single pass from planes to RGB, took 61 in two. Sums are integers that float32 holds
exactly, in any order; what follows is neither reordered nor contracted. So the result is the same on every processor.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit

_ONE = 2048  # the weights of an output pixel sum to this, as in `resize.py`
_LEAST = 3  # pixels that an output pixel is made of, at least; some may have no weight
_LANES = 32  # columns are worked on in such numbers where rows are long enough: the rest of a vector costs as much
_f4, _i4, _i8, _u8 = np.float32, np.int32, np.int64, np.uint64


def _compiled(contract: bool = False) -> Callable[[Callable], Any]:
    """Numba's decorator.

    Args:
        contract: let a product and a sum become one instruction; it changes nothing where both are exact.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"} if contract else False}

    def compiled(function: Callable) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no folder to keep it in: 5 s in every process
            return njit(**options)(function)

    return compiled


class Plan(NamedTuple):
    """Which pixels every output pixel is made of, along four axes: luma's rows and columns, chroma's rows and columns.

    Attributes:
        at: int32 (4, size, K), numbers of pixels.
        weight: float32 (4, size, K), of each; those of an output pixel sum to 2048. Many are 0.
    """

    at: np.ndarray
    weight: np.ndarray


def plan_region(picture: tuple[int, int], region: tuple[int, int, int, int], size: int, shift: tuple[int, int]) -> Plan:
    """Prepare ``resize_region`` for pictures of one size.

    Args:
        picture: height and width, luma pixels.
        region: top, left, height, width, luma pixels, inside the picture.
        size: side of the output, pixels.
        shift: 1 where there are half as many pixels of chroma, else 0; rows and columns: (1, 1) for 4:2:0.
    """
    return Plan(*_planned(picture, region, size, shift))


def packed_rows(size: int) -> np.ndarray:
    """Memory for the result of ``resize_region``: int32 (size, 3 * quads), a quad being four pixels of three bytes."""
    return np.empty((size, 3 * ((size + 3) // 4)), np.int32)


def resize_region(
    planes: Sequence[np.ndarray], strides: tuple[int, int], plan: Plan, full: bool, out: np.ndarray
) -> None:
    """Resize a region of one picture.

    Args:
        planes: Y, U and V, uint8 (n,), row by row.
        strides: bytes of a row of Y, and of one of U and V.
        plan: which region, and of pictures of which size.
        full: black is 0 and not 16.
        out: of ``packed_rows``; as bytes its rows start with the RGB pixels.

    Raises:
        ValueError: a plane is smaller than the plan's pictures.
    """
    _resized(*planes, *strides, *plan, full, out)


@_compiled()
def _planned(
    picture: tuple[int, int], region: tuple[int, int, int, int], size: int, shift: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    longest = max(region[2], region[3]) / size
    taps = max(5, int(np.ceil(2 * longest)) + 1)  # chroma that is interpolated has taps // 2 + 3
    at, weight = np.zeros((4, size, taps), _i4), np.zeros((4, size, taps), _f4)
    for axis in range(2):
        _taps(region[axis], region[axis] + region[2 + axis], picture[axis], at[axis], weight[axis])
        if shift[axis]:
            _of_chroma(at[axis], weight[axis], (picture[axis] + 1) // 2 - 1, at[2 + axis], weight[2 + axis])
        else:
            # one by one: for a whole array Numba compiles 3 s of code that could say that shapes do not fit
            for i in range(size):
                for k in range(taps):
                    at[2 + axis, i, k], weight[2 + axis, i, k] = at[axis, i, k], weight[axis, i, k]
    return at, weight


@_compiled()
def _taps(start: float, end: float, length: int, at: np.ndarray, weight: np.ndarray) -> None:
    """``resize.taps`` of one region: the pixel at a border has the weights of those that would lie beyond it."""
    size, taps = at.shape
    step = (end - start) / size
    radius = max(1.0, step)
    count = min(int(np.ceil(2 * radius)) + 1, taps)
    sums = np.empty(count)
    for i in range(size):
        centre = start + (i + 0.5) * step
        first = int(np.ceil(centre - radius - 0.5))
        total = before = 0.0
        for k in range(count):
            total += max(0.0, 1 - abs(first + k + 0.5 - centre) / radius)
            sums[k] = total
        for k in range(taps):
            pixel = first + k
            at[i, k] = min(max(pixel, 0), length - 1)
            if k < count:
                share = 0.0 if pixel < 0 else float(_ONE) if pixel >= length - 1 else np.rint(sums[k] * (_ONE / total))
                weight[i, k], before = share - before, share
        _forget_unused(at[i], weight[i])


@_compiled()
def _of_chroma(at: np.ndarray, weight: np.ndarray, end: int, out_at: np.ndarray, out_weight: np.ndarray) -> None:
    """The same of chroma pixels: a luma pixel lies between two of them, a quarter from the nearer one."""
    size, taps = at.shape
    for i in range(size):
        first = max(at[i, 0] - 1, 0) // 2
        for k in range(taps):
            out_at[i, k] = min(first + k, end)
        for k in range(taps):
            if weight[i, k] != 0:
                near = at[i, k] // 2
                far = min(near + 1, end) if at[i, k] % 2 else max(near - 1, 0)
                out_weight[i, near - first] += _f4(0.75) * weight[i, k]
                out_weight[i, far - first] += _f4(0.25) * weight[i, k]
        _forget_unused(out_at[i], out_weight[i])


@_compiled()
def _forget_unused(at: np.ndarray, weight: np.ndarray) -> None:
    """Pixels without weight are no reason to resize more of a plane."""
    for k in range(1, len(at)):
        if weight[k] == 0:
            at[k] = at[k - 1]


@_compiled()
def _resized(
    y: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    stride: int,
    chroma_stride: int,
    at: np.ndarray,
    weight: np.ndarray,
    full: bool,
    out: np.ndarray,
) -> None:
    """``resize_region`` with what is in its tuples."""
    row, column, chroma_row, chroma_column = at[0], at[1], at[2], at[3]
    row_weight, column_weight, chroma_row_weight, chroma_column_weight = weight[0], weight[1], weight[2], weight[3]
    size = len(row)
    luma, chroma = _span(len(y), stride, row, column), _span(len(u), chroma_stride, chroma_row, chroma_column)
    _span(len(v), chroma_stride, chroma_row, chroma_column)
    y_lines = _resized_rows(y, stride, luma, row, row_weight)
    u_lines = _resized_rows(u, chroma_stride, chroma, chroma_row, chroma_row_weight)
    v_lines = _resized_rows(v, chroma_stride, chroma, chroma_row, chroma_row_weight)
    pixels, words = np.empty((4, size), _i4), np.empty((3, size), _i4)
    luma_column, u_column, v_column = np.empty(size, _f4), np.empty(size, _f4), np.empty(size, _f4)
    for j in range(size):
        _resized_column(y_lines, luma[0], column[j], column_weight[j], luma_column)
        _resized_column(u_lines, chroma[0], chroma_column[j], chroma_column_weight[j], u_column)
        _resized_column(v_lines, chroma[0], chroma_column[j], chroma_column_weight[j], v_column)
        _rgb(luma_column, u_column, v_column, full, pixels[j % 4])
        if j % 4 == 3 or j == size - 1:
            _pack(pixels, j // 4, words, out)


@_compiled()
def _span(length: int, stride: int, row: np.ndarray, column: np.ndarray) -> tuple[int, int]:
    """The first column of a plane that is needed, and how many."""
    first, last = column[0, 0], column[-1, -1]
    if last >= stride or (row[-1, -1] + 1) * stride > length:
        raise ValueError("a plane of a picture is smaller than the picture")
    return first, min((last - first) // _LANES * _LANES + _LANES, stride - first)


@_compiled(contract=True)
def _resized_rows(
    plane: np.ndarray, stride: int, span: tuple[int, int], at: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """int16 (columns, size rounded up to 4), in 1/8 level: some columns of a plane with their rows resized.

    Transposed, so that the columns are resized in vectors as well; four rows are written at a time, as one number.
    """
    (size, taps), step, first, columns = at.shape, _u8(stride), _u8(span[0]), _u8(span[1])
    out = np.empty((span[1], (size + 3) // 4), _i8)
    rows, pairs, quads = np.empty((4, span[1]), _f4), np.empty((2, span[1]), _i4), np.empty(span[1], _i8)
    eighth, half = _f4(8 / _ONE), _f4(0.5)
    for quad in range(out.shape[1]):
        for q in range(4):
            i = min(4 * quad + q, size - 1)
            # unsigned, or every access would ask whether its index counts from the end
            a, b, c = _u8(at[i, 0]) * step + first, _u8(at[i, 1]) * step + first, _u8(at[i, 2]) * step + first
            wa, wb, wc = weight[i, 0], weight[i, 1], weight[i, 2]
            for x in range(columns):
                rows[q, x] = wa * _f4(plane[a + x]) + wb * _f4(plane[b + x]) + wc * _f4(plane[c + x])
            for k in range(_LEAST, taps):
                a, wa = _u8(at[i, k]) * step + first, weight[i, k]
                if wa != 0:
                    for x in range(columns):
                        rows[q, x] += wa * _f4(plane[a + x])
        for x in range(columns):
            pairs[0, x] = _i4(rows[0, x] * eighth + half) | _i4(_i4(rows[1, x] * eighth + half) << 16)
            pairs[1, x] = _i4(rows[2, x] * eighth + half) | _i4(_i4(rows[3, x] * eighth + half) << 16)
        for x in range(columns):
            quads[x] = _i8(pairs[0, x]) | (_i8(pairs[1, x]) << 32)
        for x in range(columns):
            out[x, quad] = quads[x]
    return out.view(np.int16)


@_compiled(contract=True)
def _resized_column(lines: np.ndarray, first: int, at: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """One output column, float32 (size,), in 1/16384 level."""
    a, b, c = _u8(at[0] - first), _u8(at[1] - first), _u8(at[2] - first)
    wa, wb, wc = weight[0], weight[1], weight[2]
    for i in range(len(out)):
        out[i] = wa * _f4(lines[a, i]) + wb * _f4(lines[b, i]) + wc * _f4(lines[c, i])
    for k in range(_LEAST, len(at)):
        a, wa = _u8(at[k] - first), weight[k]
        if wa != 0:
            for i in range(len(out)):
                out[i] += wa * _f4(lines[a, i])


@_compiled()
def _rgb(y: np.ndarray, u: np.ndarray, v: np.ndarray, full: bool, out: np.ndarray) -> None:
    """BT.601, from 1/16384 levels to int32 pixels whose lowest bytes are R, G and B."""
    level = _f4(1 / (8 * _ONE))
    # in limited range 219 levels of luma and 224 of chroma stand for 255
    light, colour = (_f4(1), _f4(1)) if full else (_f4(255 / 219), _f4(255 / 224))
    dark = _f4(0.5) if full else _f4(0.5 - 16 * 255 / 219)  # the 0.5 rounds
    red, blue, green_u, green_v = _f4(1.402), _f4(1.772), _f4(0.114 * 1.772 / 0.587), _f4(0.299 * 1.402 / 0.587)
    zero, most, grey = _f4(0), _f4(255), _f4(128)
    for i in range(len(out)):
        luma = light * (level * y[i]) + dark
        b, r = colour * (level * u[i] - grey), colour * (level * v[i] - grey)
        out[i] = (
            _i4(min(max(luma + red * r, zero), most))
            | _i4(_i4(min(max(luma - green_u * b - green_v * r, zero), most)) << 8)
            | _i4(_i4(min(max(luma + blue * b, zero), most)) << 16)
        )


@_compiled()
def _pack(pixels: np.ndarray, quad: int, words: np.ndarray, out: np.ndarray) -> None:
    """Four columns of pixels as three words of every row of ``out``."""
    for i in range(len(out)):
        words[0, i] = pixels[0, i] | _i4(pixels[1, i] << 24)
        words[1, i] = _i4(pixels[1, i] >> 8) | _i4(pixels[2, i] << 16)
        words[2, i] = _i4(pixels[2, i] >> 16) | _i4(pixels[3, i] << 8)
    for i in range(len(out)):
        row = out[i]
        row[3 * quad] = words[0, i]
        row[3 * quad + 1] = words[1, i]
        row[3 * quad + 2] = words[2, i]

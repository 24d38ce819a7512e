"""Planes to a square of RGB in one pass: against float64, in other pixel formats, on other processors."""

import hashlib
import os
import platform
import subprocess
import sys

import av
import numpy as np
import pytest
import torch

from unstill.pipeline.loading.frame_decoder import KeptDecoders
from unstill.pipeline.loading.planar_resize import packed_rows, plan_region, resize_region
from unstill.pipeline.loading.resize import matrix, taps

PICTURES = {  # height, width, and regions: whole, odd, enlarged, shrunk more than eightfold, one pixel in the corner
    (64, 96): [(0, 0, 64, 96), (7, 13, 51, 77), (20, 30, 9, 5), (63, 95, 1, 1)],
    (37, 41): [(0, 0, 37, 41), (1, 1, 35, 39), (36, 40, 1, 1)],
    (1, 2): [(0, 0, 1, 2)],
}
SHIFTS = [(1, 1), (0, 1), (1, 0), (0, 0)]


def planes_of(height: int, width: int, shift: tuple[int, int], padding: int = 0) -> list[np.ndarray]:
    """Noise, uint8 (rows, bytes of a row)."""
    draw, rows, columns = np.random.default_rng(0), -(-height >> shift[0]), -(-width >> shift[1])
    return [draw.integers(0, 256, (a, b + padding), np.uint8) for a, b in ((height, width), *[(rows, columns)] * 2)]


def resized(planes: list[np.ndarray], plan, full: bool, size: int) -> np.ndarray:
    """uint8 (size, size, 3)."""
    out = packed_rows(size)
    resize_region([plane.reshape(-1) for plane in planes], (planes[0].shape[1], planes[1].shape[1]), plan, full, out)
    return out.view(np.uint8)[:, : 3 * size].reshape(size, size, 3)


def filters(picture: tuple[int, int], region: tuple[int, int, int, int], size: int) -> list[np.ndarray]:
    """float64 (size, height) and (size, width), of ``resize.py``."""
    found = []
    for begin, side, length in zip(region[:2], region[2:], picture, strict=True):
        at, weight = taps(np.array([begin]), np.array([begin + side]), np.array([length]), size)
        found.append(matrix(torch.from_numpy(at), torch.from_numpy(weight), length)[0].double().numpy() / 2048)
    return found


def between(length: int) -> np.ndarray:
    """float64 (length, chroma pixels): linear interpolation of chroma at luma pixels."""
    pixels = (length + 1) // 2
    place = np.clip((np.arange(length) + 0.5) / 2 - 0.5, 0, pixels - 1)
    return np.maximum(0, 1 - abs(place[:, None] - np.arange(pixels)))


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("size", [1, 13, 16, 50])
def test_against_float64(shift, size):
    """Rounding aside: half a level at the end, and a sixteenth between the two passes, times 2 in colours."""
    for (height, width), regions in PICTURES.items():
        planes = planes_of(height, width, shift, padding=7)
        whole = [planes[0][:, :width].astype(float)]
        for plane in planes[1:]:
            plane = plane[:, : -(-width >> shift[1])].astype(float)
            plane = between(height) @ plane if shift[0] else plane
            whole.append(plane @ between(width).T if shift[1] else plane)
        for region in regions:
            rows, columns = filters((height, width), region, size)
            y, u, v = (rows @ plane @ columns.T for plane in whole)
            plan = plan_region((height, width), region, size, shift)
            for full in (False, True):
                luma, colour = (y, 1) if full else ((y - 16) * 255 / 219, 255 / 224)
                b, r = colour * (u - 128), colour * (v - 128)
                green = luma - (0.114 * 1.772 * b + 0.299 * 1.402 * r) / 0.587
                wanted = np.stack([luma + 1.402 * r, green, luma + 1.772 * b], axis=-1).clip(0, 255)
                error = abs(resized(planes, plan, full, size) - wanted).max()
                assert error < 0.75, (region, full, error)


def test_plans_of_any_region():
    """All pixels are in the picture, for nothing else keeps the compiled code from reading beyond it."""
    draw = np.random.default_rng(3)
    for _ in range(500):
        height, width = draw.integers(1, 90, 2).tolist()
        top, left = int(draw.integers(height)), int(draw.integers(width))
        region = top, left, int(draw.integers(1, height - top + 1)), int(draw.integers(1, width - left + 1))
        shift = int(draw.integers(2)), int(draw.integers(2))
        plan = plan_region((height, width), region, int(draw.integers(1, 70)), shift)
        sides = height, width, -(-height >> shift[0]), -(-width >> shift[1])
        assert plan.at.min() >= 0 and (plan.at.max((1, 2)) < sides).all(), (height, width, region, shift)
        assert (plan.weight.sum(-1) == 2048).all() and plan.weight.min() >= 0, (height, width, region, shift)


def test_a_plane_smaller_than_its_picture_is_refused():
    """What a damaged stream could give: reading beyond it would crash the process."""
    plan = plan_region((64, 96), (0, 0, 64, 96), 16, (1, 1))
    for smaller in range(3):
        for cut in (np.s_[:-1], np.s_[:, :-1]):
            planes = planes_of(64, 96, (1, 1))
            planes[smaller] = np.ascontiguousarray(planes[smaller][cut])
            with pytest.raises(ValueError, match="smaller than the picture"):
                resized(planes, plan, False, 16)


@pytest.mark.parametrize("form", ["yuv422p", "yuv440p", "yuv444p", "yuvj422p", "yuv420p10le", "gbrp", "rgb24", "gray"])
def test_other_pixel_formats(form):
    """A frame of few colours in any pixel format is the frame that it was made of."""
    colours = np.array([[[200, 30, 60], [20, 180, 90]], [[128, 128, 128], [40, 60, 220]]], np.uint8)
    if form == "gray":
        colours = np.repeat(colours.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    picture = colours.repeat(16, axis=0).repeat(24, axis=1)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form)
    out = np.empty((32, 32, 3), np.uint8)
    KeptDecoders(32).scaled(frame, (0, 0, 32, 48), out)
    for (i, j), place in {(0, 0): (8, 8), (0, 1): (8, 24), (1, 0): (24, 8), (1, 1): (24, 24)}.items():
        assert abs(out[place].astype(int) - colours[i, j]).max() <= 3, (form, out[place], colours[i, j])


def digest() -> str:
    """Of many results."""
    found = hashlib.sha256()
    for (height, width), regions in PICTURES.items():
        for region in regions:
            plan = plan_region((height, width), region, 28, (1, 1))
            found.update(resized(planes_of(height, width, (1, 1)), plan, False, 28).tobytes())
    return found.hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names a processor of x86-64")
def test_every_processor_gives_the_same(tmp_path):
    """Here, and on one without fused products and wide vectors."""
    plain = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    path = {"PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", "import test_planar_resize as t; print(t.digest())"]
    done = subprocess.run(command, env=os.environ | plain | path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == digest()

"""Cut and resize in PyTorch: DALI's filter, the same bits on every device."""

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn, types

from unstill.pipeline.loading import resize
from unstill.pipeline.loading.resize import matrix, resized, taps

HEIGHT, WIDTH = 96, 130
# top, left, bottom, right: the whole picture, in the middle, at corners, smaller than the output, beyond the picture
REGIONS = np.array(
    [(0, 0, 96, 130), (5, 7, 69, 71), (20, 30, 96, 130), (0, 0, 33, 41), (90, 0, 96, 9), (-9, 90, 300, 300)]
)


def pictures(kind: str) -> np.ndarray:
    """uint8 (2, HEIGHT, WIDTH, 3)."""
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
    y, x = np.arange(HEIGHT)[:, None, None], np.arange(WIDTH)[:, None]
    waves = 127 + 120 * np.sin(0.2 * x + 0.1 * y + np.arange(3))
    return np.stack([waves, waves[::-1]]).astype(np.uint8)


def ours(frames: np.ndarray, size: int, device: str = "cpu") -> torch.Tensor:
    """uint8 (6, 2, size, size, 3): each region of both frames."""
    many, factors = len(REGIONS), []
    for axis, side in enumerate((HEIGHT, WIDTH)):
        at, weight = taps(REGIONS[:, axis], REGIONS[:, axis + 2], np.full(many, side), size)
        factors.append(matrix(torch.from_numpy(at).to(device), torch.from_numpy(weight).to(device), side))
    video = torch.from_numpy(frames).to(device).repeat(many, 1, 1, 1)
    clip = torch.arange(many, device=device).repeat_interleave(2)
    return resized(video, clip, *factors).view(many, 2, size, size, 3)


def dalis(frames: np.ndarray, size: int) -> torch.Tensor:
    regions = np.clip(REGIONS, 0, (HEIGHT, WIDTH) * 2).astype(np.float32)
    pipeline = Pipeline(batch_size=len(REGIONS), num_threads=1, device_id=None)
    with pipeline:
        video = fn.external_source(source=lambda: [frames] * len(REGIONS), layout="FHWC")
        start = fn.external_source(source=lambda: regions[:, :2].copy())
        end = fn.external_source(source=lambda: regions[:, 2:].copy())
        options = {"interp_type": types.DALIInterpType.INTERP_LINEAR, "antialias": True}
        pipeline.set_outputs(fn.resize(video, size=[size, size], roi_start=start, roi_end=end, **options))
    return torch.from_dlpack(pipeline.run()[0].as_tensor()).clone()


@pytest.mark.parametrize("size", [16, 32, 64, 112])
@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_within_one_level_of_dali(kind, size):
    frames = pictures(kind)
    difference = (ours(frames, size).int() - dalis(frames, size).int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.04


@pytest.mark.parametrize("size", [16, 64])
def test_against_float64(size):
    """The triangle, written down once more: pixels of all distances, those beyond the border taken as its own."""
    frames = pictures("noise")
    found = ours(frames, size).double()
    for row, region in enumerate(np.clip(REGIONS, 0, (HEIGHT, WIDTH) * 2).tolist()):
        weights = []
        for start, end, side in zip(region[:2], region[2:], (HEIGHT, WIDTH), strict=True):
            step = (end - start) / size
            centre = start + (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * step
            pixel = torch.arange(-side, 2 * side)
            weight = (1 - (pixel + 0.5 - centre).abs() / max(1.0, step)).clamp_min(0)
            weight /= weight.sum(1, keepdim=True)
            weights.append(torch.zeros(size, side).double().index_add_(1, pixel.clamp(0, side - 1), weight))
        lines = torch.einsum("yh,fhwc->fywc", weights[0], torch.from_numpy(frames).double())
        wanted = torch.einsum("xw,fywc->fyxc", weights[1], lines)
        assert (found[row] - wanted).abs().max() < 0.5 + 0.25


def test_every_number_is_exact_in_tf32(monkeypatch):
    """Factors without the 13 bits that TF32 lacks, and parts of a video, give the same bits."""
    frames, multiply = pictures("noise"), torch.bmm
    wanted = ours(frames, 64)
    cut = lambda factor: (factor.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)  # noqa: E731
    monkeypatch.setattr(torch, "bmm", lambda a, b: multiply(cut(a), cut(b)))
    monkeypatch.setattr(resize, "_PIXELS", 5 * HEIGHT * WIDTH * 3)
    assert torch.equal(ours(frames, 64), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("tf32", [False, True])
def test_a_gpu_gives_the_same_bits(monkeypatch, tf32):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    for kind in ("noise", "smooth"):
        assert torch.equal(ours(pictures(kind), 112, "cuda").cpu(), ours(pictures(kind), 112))

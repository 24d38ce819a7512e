"""Camera motion, estimated from a clip alone and taken out of it.

    steady, trusted = steady_clips(clips, "similarity")

    found = estimate_camera(clips, "similarity")    # matrices (B,T,3,3), from the reference frame's places to frame t's
    steady = hold_still(clips, found.matrices)      # every frame as the reference frame's camera would have seen it

Frame to frame, a translation by phase correlation starts a few Gauss-Newton steps of the wanted kind, whose weights
fade out what moves otherwise (Geman and McClure's, inverse compositional form of Baker and Matthews, IJCV 2004). These
matrices are multiplied along the clip, and each product is refined against the reference frame, the middle one, so that
errors do not add up. All of it is batched over clips and frames, and the host waits for nothing.

``found.still`` is the share of the picture that stands still afterwards. Where it is low the estimate is not to be
trusted: parallax, cuts, blur, or a mover that fills the picture.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["translation", "similarity", "homography"]

LARGEST = 112  # side in pixels that motion is estimated at; larger clips are made smaller first
STEPS = 4  # of Gauss-Newton, at each level of each stage
SPREAD = 3.0  # median differences at which a pixel's weight is a quarter
STILL = 0.5  # a pixel stands still where it differs by less, in standard deviations of the reference frame
TRUSTED = 0.5  # share of the picture that must stand still in every frame
GAIN = 0.01  # share of the picture that must be won: a still camera's clips are left as they are


@dataclass(frozen=True)
class CameraMotion:
    """How a camera moved in each of B clips of T frames.

    Attributes:
        matrices: float32 (B,T,3,3), from places in the reference frame to places in frame t, homogeneous, in units in
            which each side of the picture goes from -1 to 1.
        still: float32 (B,), share of the picture that stands still once the motion is taken out, in the frame
            where that is least: one frame after a cut is enough.
        still_before: float32 (B,), the same of the clip as filmed.
    """

    matrices: Tensor
    still: Tensor
    still_before: Tensor

    @property
    def trusted(self) -> Tensor:
        """bool (B,): whether the picture stands still, by itself or once the motion is taken out."""
        return torch.maximum(self.still, self.still_before) >= TRUSTED

    @property
    def helps(self) -> Tensor:
        """bool (B,): whether to take the motion out: it is trusted, and more of the picture then stands still."""
        return self.trusted & (self.still > self.still_before + GAIN)


# generators of each kind: derivatives of the matrix by its parameters, at the identity
_SHIFT = [(0, 0, 1, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 1, 0, 0, 0)]
_TURN_AND_ZOOM = [(1, 0, 0, 0, 1, 0, 0, 0, 0), (0, -1, 0, 1, 0, 0, 0, 0, 0)]
_GENERATORS: dict[str, list[tuple[int, ...]]] = {
    "translation": _SHIFT,
    "similarity": _SHIFT + _TURN_AND_ZOOM,
    "homography": [tuple(int(k == n) for k in range(9)) for n in range(8)],
}


@torch.no_grad()
def steady_clips(clips: Tensor, kind: Kind = "similarity") -> tuple[Tensor, Tensor]:
    """Clips whose camera stands still, and whether it does.

    Args:
        clips: (B,3,T,h,w), normalised.
        kind: what the camera's motion may be.

    Returns:
        ``(steady, trusted)``: the clips, of their dtype, with the camera's motion taken out where that helps; bool
        (B,), False where the picture does not stand still even so: such a clip is as it was.
    """
    found = estimate_camera(clips, kind)
    helps = found.helps.view(-1, 1, 1, 1, 1)
    return torch.where(helps, hold_still(clips, found.matrices), clips), found.trusted


@torch.no_grad()
def estimate_camera(clips: Tensor, kind: Kind = "similarity") -> CameraMotion:
    """The camera's motion in clips (B,3,T,h,w); floating point, any normalisation that is the same for all frames."""
    b, _, t, h, w = clips.shape
    grey = clips.float().mean(1).reshape(b * t, 1, h, w)
    scale = max(h, w) / LARGEST
    if scale > 1:
        grey = F.interpolate(grey, (round(h / scale), round(w / scale)), mode="area")
    frames = grey.view(b, t, *grey.shape[2:])
    middle = t // 2
    before, after = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
    size = torch.tensor([frames.shape[3], frames.shape[2]], device=clips.device)
    steps = shift_matrices(phase_correlation(before, after) * 2 / size)
    steps = refine(before, after, steps, kind).view(b, t - 1, 3, 3)
    matrices = _along_the_clip(steps, middle)
    reference = frames[:, middle, None].expand_as(frames).flatten(0, 1)
    matrices = refine(reference, frames.flatten(0, 1), matrices.flatten(0, 1), kind)
    at_rest = torch.eye(3, device=clips.device).expand_as(matrices)
    still, before = (still_share(reference, frames.flatten(0, 1), m).view(b, t).amin(1) for m in (matrices, at_rest))
    return CameraMotion(matrices.view(b, t, 3, 3), still, before)


def hold_still(clips: Tensor, matrices: Tensor) -> Tensor:
    """Each frame as the reference frame's camera would have seen it.

    Places that a frame does not show have their mean over the frames that do: nothing moves there.

    Args:
        clips: (B,3,T,h,w).
        matrices: (B,T,3,3), see ``CameraMotion``.
    """
    b, c, t, h, w = clips.shape
    frames = clips.float().transpose(1, 2).reshape(b * t, c, h, w)
    grid = places(matrices.flatten(0, 1), h, w)
    seen = inside(grid).view(b, 1, t, h, w)
    warped = F.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    warped = warped.view(b, t, c, h, w).transpose(1, 2)
    mean = (warped * seen).sum(2, keepdim=True) / seen.sum(2, keepdim=True).clamp(min=1)
    return torch.where(seen.bool(), warped, mean).to(clips.dtype)


def phase_correlation(first: Tensor, second: Tensor) -> Tensor:
    """(N,2): shift in whole pixels (right, down) that makes ``second`` from ``first``, (N,h,w) each.

    Of the peak of the phase correlation, that of the plain correlation and no shift at all, the one that leaves
    the least difference: a repeated pattern has many peaks, and one coarse wave has hardly a phase.
    """
    n, h, w = first.shape
    window = torch.outer(_hann(h, first.device), _hann(w, first.device))
    mean = first.mean((1, 2), keepdim=True)
    a, b = (torch.fft.rfft2((frames - mean) * window) for frames in (first, second))
    product = a.conj() * b
    power = product.abs()
    candidates = [torch.zeros(n, 2, device=first.device)]
    for spectrum in (product / (power + 1e-3 * power.mean((1, 2), keepdim=True) + 1e-12), product):
        peak = torch.fft.irfft2(spectrum, s=(h, w)).flatten(1).argmax(1)
        down, right = peak // w, peak % w
        down, right = (torch.where(shift > side // 2, shift - side, shift) for shift, side in ((down, h), (right, w)))
        candidates.append(torch.stack([right, down], 1).float())
    errors = torch.stack([_difference(first, second, shift) for shift in candidates])
    best = errors.argmin(0)
    return torch.stack(candidates).gather(0, best.view(1, -1, 1).expand(1, n, 2))[0]


def refine(reference: Tensor, frames: Tensor, matrices: Tensor, kind: Kind) -> Tensor:
    """Gauss-Newton steps from (N,3,3), on a half-size level first where pictures are large."""
    if min(reference.shape[1:]) >= 64:
        half_reference, half_frames = (F.avg_pool2d(picture[:, None], 2)[:, 0] for picture in (reference, frames))
        matrices = _steps(half_reference, half_frames, matrices, kind)
    return _steps(reference, frames, matrices, kind)


def _steps(reference: Tensor, frames: Tensor, matrices: Tensor, kind: Kind) -> Tensor:
    n = len(reference)
    generators = _generators(kind, reference.device)
    k = len(generators)
    jacobian = _jacobian(reference, generators)  # (N,K,hw)
    identity = torch.eye(3, device=reference.device)
    damping = 1e-5 * torch.eye(k, device=reference.device)
    for _ in range(STEPS):
        warped, seen = _seen_from(frames, matrices)
        residual = (warped - reference).flatten(1)
        seen = seen.flatten(1)
        scale = SPREAD * median(residual.abs())[:, None] + 1e-6
        weight = seen / (1 + (residual / scale).square()).square()
        weighted = jacobian * weight[:, None]
        normal = weighted @ jacobian.mT
        normal = normal + damping * (normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-6)[:, None, None]
        change = torch.linalg.solve_ex(normal, weighted @ residual[:, :, None])[0][:, :, 0]
        step = identity + (change @ generators.flatten(1)).view(n, 3, 3)
        matrices = matrices @ torch.linalg.inv_ex(step)[0]
        matrices = matrices / matrices[:, 2:, 2:]
    return matrices


def _jacobian(reference: Tensor, generators: Tensor) -> Tensor:
    """(N,K,hw): change of each pixel by each parameter."""
    h, w = reference.shape[1:]
    padded = F.pad(reference[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) * (w / 4)  # in units of half a side
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) * (h / 4)
    at = _pixels(h, w, reference.device)  # (hw,3)
    moved = generators @ at.mT  # (K,3,hw)
    moved = moved[:, :2] - at.mT[:2] * moved[:, 2:]
    return right.flatten(1)[:, None] * moved[:, 0] + down.flatten(1)[:, None] * moved[:, 1]


def still_share(reference: Tensor, frames: Tensor, matrices: Tensor) -> Tensor:
    """(N,): share of the pixels seen in both that differ by less than ``STILL`` deviations of the reference frame.

    Differences are averaged over 3 x 3 pixels first, for noise. A frame that shows less than half of the reference
    frame's places counts as moved altogether.
    """
    warped, seen = _seen_from(frames, matrices)
    difference = F.avg_pool2d((warped - reference)[:, None], 3, 1, 1)[:, 0].abs()
    still = (difference < STILL * reference.std((1, 2), keepdim=True) + 1e-6) & (seen > 0)
    share = still.sum((1, 2)) / seen.sum((1, 2)).clamp(min=1)
    return torch.where(seen.mean((1, 2)) >= 0.5, share, 0.0)


def _seen_from(frames: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (N,h,w) at the places that matrices map the pixels to, and 1.0 where those are inside."""
    grid = places(matrices, *frames.shape[1:])
    warped = F.grid_sample(frames[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return warped, inside(grid)


def places(matrices: Tensor, h: int, w: int) -> Tensor:
    """(N,h,w,2): where each pixel's centre is mapped to, (across, down)."""
    mapped = _pixels(h, w, matrices.device) @ matrices.mT
    return (mapped[..., :2] / mapped[..., 2:]).view(-1, h, w, 2)


def inside(grid: Tensor) -> Tensor:
    """float32 (N,h,w): 1 where a place is within the picture."""
    return (grid.abs().amax(-1) <= 1).float()


def shift_matrices(shift: Tensor) -> Tensor:
    """(N,3,3) of shifts (N,2) in units of half a side."""
    matrices = torch.eye(3, device=shift.device).repeat(len(shift), 1, 1)
    matrices[:, :2, 2] = shift
    return matrices


def _along_the_clip(steps: Tensor, middle: int) -> Tensor:
    """(B,T,3,3) from the motion between successive frames (B,T-1,3,3): from the middle frame to every other."""
    b, t = len(steps), steps.shape[1] + 1
    back = torch.linalg.inv_ex(steps)[0]
    found = [torch.eye(3, device=steps.device).expand(b, 3, 3)] * t
    for n in range(middle, t - 1):
        found[n + 1] = steps[:, n] @ found[n]
    for n in range(middle, 0, -1):
        found[n - 1] = back[:, n - 1] @ found[n]
    matrices = torch.stack(found, 1)
    return matrices / matrices[..., 2:, 2:]


def _difference(first: Tensor, second: Tensor, shift: Tensor) -> Tensor:
    """(N,): median absolute difference after a shift in pixels: what moves otherwise has no part in it."""
    half = shift * 2 / torch.tensor([first.shape[2], first.shape[1]], device=first.device)
    warped, _ = _seen_from(second, shift_matrices(half))
    return median((warped - first).abs().flatten(1))


def median(values: Tensor) -> Tensor:
    """(N,): the median of every seventh of (N,M) values; by sorting, which is deterministic on every device."""
    some = values[:, ::7].sort(1).values
    return some[:, some.shape[1] // 2]


def _pixels(h: int, w: int, device: torch.device) -> Tensor:
    """(hw,3): homogeneous places of the pixels' centres."""
    down, right = ((2 * torch.arange(side, device=device) + 1) / side - 1 for side in (h, w))
    ones = torch.ones(h, w, device=device)
    return torch.stack([right.expand(h, w), down[:, None].expand(h, w), ones], -1).view(-1, 3)


def _hann(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size + 2, periodic=False, device=device)[1:-1]


def _generators(kind: str, device: torch.device) -> Tensor:
    return torch.tensor(_GENERATORS[kind], dtype=torch.float32, device=device).view(-1, 3, 3)

"""Second-order statistics of colour, and giving one clip those of another.

    C = mean over time and place of v v^T + floor I        3 x 3, for a clip v (3,T,h,w)
    C_k^1/2 Q C_i^-1/2 v_i                                 has the statistics of clip k; Q: a rotation of colour space

The same 3 x 3 matrix acts on every pixel of every frame, so what a clip shows and how it moves stay as they are.
The roots are in closed form: a library's eigen-decomposition makes the host wait for the device.
"""

from math import pi

import torch
from torch import Tensor


def colour_covariance(clips: Tensor, floor: float = 0.0) -> Tensor:
    """float64 (B,3,3): mean of v v^T over (B,3,T,h,w), plus ``floor`` on the diagonal."""
    flat = clips.flatten(2)
    covariance = (flat @ flat.mT).double() / flat.shape[2]
    return covariance + floor * torch.eye(3, dtype=torch.float64, device=clips.device)


def square_roots(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The square root and its inverse of symmetric positive definite matrices, float64 (B,3,3) each.

    With a, b, c the sum, the sum of the pairwise products and the product of the roots of the eigenvalues, Cayley and
    Hamilton give S^3 - a S^2 + b S - c = 0 for the root S of C, and with S^2 = C: S (C + b) = a C + c.
    """
    e1, e2, e3 = (value.sqrt() for value in eigenvalues(matrices))
    a, b, c = (value[:, None, None] for value in (e1 + e2 + e3, e1 * e2 + e1 * e3 + e2 * e3, e1 * e2 * e3))
    identity = torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    numerator, denominator = a * matrices + c * identity, matrices + b * identity
    return numerator @ inverse(denominator), denominator @ inverse(numerator)


def eigenvalues(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Those of symmetric matrices (B,3,3), largest first, by the trigonometric form (Smith, 1961)."""
    mean = matrices.diagonal(dim1=1, dim2=2).mean(1)
    identity = torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    rest = matrices - mean[:, None, None] * identity
    spread = (rest.square().sum((1, 2)) / 6).sqrt()
    scaled = rest / torch.where(spread > 0, spread, 1)[:, None, None]
    angle = torch.acos((determinant(scaled) / 2).clamp(-1, 1)) / 3
    largest = mean + 2 * spread * torch.cos(angle)
    least = mean + 2 * spread * torch.cos(angle + 2 * pi / 3)
    tiny = 1e-12 * largest.abs() + 1e-300  # rounding may push the least below 0
    return largest, (3 * mean - largest - least).maximum(tiny), least.maximum(tiny)


def determinant(matrices: Tensor) -> Tensor:
    """(B,) of (B,3,3)."""
    first, second, third = matrices.unbind(1)
    return (first * torch.linalg.cross(second, third)).sum(1)


def inverse(matrices: Tensor) -> Tensor:
    """That of symmetric invertible matrices (B,3,3), by cofactors."""
    first, second, third = matrices.unbind(1)
    cofactors = torch.stack(
        [torch.linalg.cross(second, third), torch.linalg.cross(third, first), torch.linalg.cross(first, second)], 1
    )
    return cofactors.mT / determinant(matrices)[:, None, None]


def borrow_colours(clips: Tensor, partner: Tensor, rotation: Tensor, floor: float) -> Tensor:
    """Each clip with the colour covariance of its partner.

    Args:
        clips: (B,3,T,h,w), about 0.
        partner: int64 (B,), whose statistics each clip gets.
        rotation: float64 (B,3,3), rotations of colour space.
        floor: added to the covariances' diagonals, so that a colour that a clip lacks is not amplified without limit.
    """
    root, inverse_root = square_roots(colour_covariance(clips, floor))
    matrix = (root[partner] @ rotation @ inverse_root).to(clips.dtype)
    return (matrix @ clips.flatten(2)).view(clips.shape)

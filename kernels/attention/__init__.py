"""Softmax attention with exact first and second derivatives, in memory linear in the number of tokens.

Per window and head, with Q (M, d), K and V (N, d), scale s, and B the bias plus the mask:

    forward   S = s Q K^T + B,  P = softmax(S),  O = P V
    backward  dP = dO V^T,  dS = P*(dP - rowsum(P*dP))
              dQ = s dS K,  dK = s dS^T Q,  dV = P^T dO,  dB = sum over windows of dS
    double    with the cotangents a, b, c, e of dQ, dK, dV, dB:
              T = s (a K^T + Q b^T) + e,  t = rowsum(P*T),  U = P*(T - t)            (cotangent of dP)
              Y = P*(dO c^T) + T*dS - t P*dP,  W = Y - P rowsum(Y)                   (cotangent of S)
              g_dO = U V + P c,  g_V = U^T dO,  g_B = sum over windows of W
              g_Q = s (W K + dS b),  g_K = s (W^T Q + dS^T a)

Each is a custom op of its own that recomputes P, so a gradient of a gradient (reverse over reverse, as a gradient
penalty takes it) keeps Q, K, V, B and dO and no M x N matrix. On a GPU O is kept as well, which the projection after
the attention keeps in the same memory, and at most two numbers per query. A third derivative raises.

Scores, softmax and sums are float32 (float64 for float64). Triton computes bfloat16 and float16 on a GPU, with 16-bit
factors in its products; everything else is plain torch in chunks.
"""

import torch
from torch import Tensor

from ..forward_mode import refuse_forward_mode
from . import flops  # noqa: F401  (registers the formulas)
from .operators import attention_op

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LARGEST_HEAD = 256


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    regions: Tensor | None = None,
) -> Tensor:
    """softmax(scale q k^T + bias + mask) v, twice differentiable with respect to q, k, v and bias.

    Args:
        q: (B, H, M, d) float32, bfloat16, float16 or float64, any strides, d <= 256 (above 128 without
            Triton). In windowed attention B counts windows. Views of one packed (B, N, 3, H, d) tensor are taken as
            they are: ``packed.unbind(2)``, each ``.transpose(1, 2)``.
        k, v: (B, H, N, d), of the dtype of q.
        scale: factor of the scores; d ** -0.5 by default.
        bias: (H, M, N) floating point, added to the scores of every window; its gradient is summed over the windows,
            in its own dtype.
        regions: int8 (W, N), with M = N and W a divisor of B: the region of each token in each of W windows. The score
            of two tokens of different regions gets -100 added, as in torchvision's shifted windows. Batch entry i uses
            row i % W.

    Returns:
        (B, H, M, d) in the dtype of q, laid out (B, M, H, d) in memory: ``.transpose(1, 2).flatten(2)`` is a view.

    Raises:
        TypeError: a wrong dtype. ValueError: a wrong shape or device. NotImplementedError: forward-mode
        differentiation.
    """
    check_arguments(q, k, v, bias, regions)
    refuse_forward_mode("attention", q, k, v, *(() if bias is None else (bias,)))
    out, _ = attention_op(q, k, v, bias, regions, q.shape[-1] ** -0.5 if scale is None else float(scale))
    return out


def check_arguments(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, regions: Tensor | None) -> None:
    """Everything that can be checked without reading the device."""
    if q.dtype not in DTYPES or k.dtype != q.dtype or v.dtype != q.dtype:
        raise TypeError(f"attention: q, k, v must be of one floating point dtype, got {q.dtype}, {k.dtype}, {v.dtype}")
    if q.dim() != 4 or k.dim() != 4 or v.shape != k.shape or k.shape[:2] != q.shape[:2] or k.shape[3] != q.shape[3]:
        shapes = tuple(q.shape), tuple(k.shape), tuple(v.shape)
        raise ValueError("attention: expected q (B, H, M, d), k and v (B, H, N, d), got {}, {}, {}".format(*shapes))
    if 0 in q.shape or 0 in k.shape or q.shape[3] > LARGEST_HEAD:
        raise ValueError(f"attention: expected at least one token and d <= {LARGEST_HEAD}, got {tuple(q.shape)}")
    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    if bias is not None and not bias.is_floating_point():
        raise TypeError(f"attention: bias must be floating point, got {bias.dtype}")
    if bias is not None and bias.shape != (heads, queries, keys):
        raise ValueError(f"attention: bias must be (H, M, N) = {(heads, queries, keys)}, got {tuple(bias.shape)}")
    if regions is not None:
        if regions.dtype != torch.int8:
            raise TypeError(f"attention: regions must be int8, got {regions.dtype}")
        windows = regions.shape[0]
        if regions.dim() != 2 or queries != keys or regions.shape[1] != keys or windows < 1 or batch % windows:
            raise ValueError(
                f"attention: regions must be (W, N) with M = N = {keys} and W a divisor of B = {batch}, "
                f"got {tuple(regions.shape)} for M = {queries}"
            )
    for name, tensor in (("k", k), ("v", v), ("bias", bias), ("regions", regions)):
        if tensor is not None and tensor.device != q.device:
            raise ValueError(f"attention: {name} is on {tensor.device}, q on {q.device}")

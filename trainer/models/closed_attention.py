"""Attention layers over ``kernels.attention``, whose gradient of a gradient keeps no matrix of tokens by tokens.

Three kinds of network are covered:

* torchvision's Video Swin: windows with a position bias and, where they are shifted, regions that do not see each
  other. torchvision makes a float mask of 78 MB for them at 32x224x224; here they are 50 KB of int8 numbers.
* torchvision's MViT: queries, keys and values of different numbers of tokens, and relative positions that depend on
  the query. With r the one-hot positions of a key, score = s q k + q R r: an ordinary product of longer vectors.
* whatever calls ``F.scaled_dot_product_attention``, through a switch around the forward.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models.video.mvit import MultiscaleAttention, _interpolate
from torchvision.models.video.swin_transformer import _compute_pad_size_3d, _get_window_and_shift_size

from ...kernels.attention import LARGEST_HEAD, attention
from ...kernels.autocast import as_autocast
from ...pipeline.errors import InputError
from .position_bias import LookedUpBiasAttention


def region_numbers(size: tuple[int, ...], window: list[int], shift: list[int], device: torch.device) -> Tensor:
    """int8 (W, N): the region of each of the N tokens in each of W windows of a shifted grid.

    Args:
        size: padded numbers of tokens (T, h, w), multiples of ``window``.
        window, shift: of each axis.
    """
    number = torch.zeros((), dtype=torch.int8, device=device)
    for axis in range(3):
        at = torch.arange(size[axis], device=device)
        # the last window of an axis joins its two ends; where it is not shifted, the comparison is never true
        part = (at >= size[axis] - window[axis]).to(torch.int8) + (at >= size[axis] - shift[axis]).to(torch.int8)
        number = number * 3 + part.view(-1, *(1,) * (2 - axis))
    return into_windows(number[None, ..., None], window).flatten(1)


def into_windows(x: Tensor, window: list[int]) -> Tensor:
    """(B,T,h,w,C) -> (B*W, N, C): W windows of N tokens."""
    b, t, h, w, c = x.shape
    x = x.view(b, t // window[0], window[0], h // window[1], window[1], w // window[2], window[2], c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, window[0] * window[1] * window[2], c)


def out_of_windows(x: Tensor, shape: tuple[int, ...], window: list[int]) -> Tensor:
    """The inverse of ``into_windows``, for a result of ``shape``."""
    b, t, h, w, c = shape
    x = x.view(b, t // window[0], h // window[1], w // window[2], *window, c)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(shape)


class ClosedWindowAttention(LookedUpBiasAttention):
    """torchvision's shifted window attention, closed; same parameters, equal up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """(B,T,h,w,C) -> the same shape."""
        t, h, w = x.shape[1:4]
        window, shift = _get_window_and_shift_size(self.shift_size.copy(), [t, h, w], self.window_size.copy())
        pad = _compute_pad_size_3d((t, h, w), (window[0], window[1], window[2]))
        y = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0])) if sum(pad) else x
        shape, shifted = y.shape, sum(shift) > 0
        if shifted:
            y = torch.roll(y, [-s for s in shift], (1, 2, 3))
        y = self._attend(into_windows(y, window), shape, window, shift if shifted else None)
        y = out_of_windows(y, shape, window)
        if shifted:
            y = torch.roll(y, shift, (1, 2, 3))
        return y[:, :t, :h, :w].contiguous()

    def _attend(self, y: Tensor, shape: torch.Size, window: list[int], shift: list[int] | None) -> Tensor:
        packed = torch.unflatten(self.qkv(y), 2, (3, self.num_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in packed.unbind(2))
        bias = self.get_relative_position_bias(window)[0]
        regions = None if shift is None else region_numbers(shape[1:4], window, shift, y.device)
        y = self.proj(attention(q, k, v, bias=bias, regions=regions).transpose(1, 2).flatten(2))
        return F.dropout(y, self.dropout, self.training)


class ClosedMultiscaleAttention(MultiscaleAttention):
    """torchvision's MViT attention, closed; same parameters, equal up to rounding."""

    def forward(self, x: Tensor, thw: tuple[int, int, int]) -> tuple[Tensor, tuple[int, int, int]]:
        """Tokens (B,N,C) of a grid ``thw`` and one for the class -> the same of the pooled grid."""
        q, k, v = torch.unflatten(self.qkv(x), 2, (3, self.num_heads, -1)).transpose(1, 3).unbind(2)
        k, k_thw = (k, thw) if self.pool_k is None else self.pool_k(k, thw)
        v = v if self.pool_v is None else self.pool_v(v, thw)[0]
        q, thw = (q, thw) if self.pool_q is None else self.pool_q(q, thw)
        q, k, v = as_autocast(q, k, v)
        y = self._attend(q, k, v, thw, k_thw)
        if self.residual_pool:
            # not in place, as in torchvision: the attention keeps its result for the backward
            y = y + (q if self.residual_with_cls_embed else F.pad(q[:, :, 1:], (0, 0, 1, 0)))
        return self.project(y.transpose(1, 2).flatten(2)), thw

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, q_thw, k_thw) -> Tensor:
        if self.rel_pos_h is None:
            return attention(q, k, v, scale=self.scaler)
        by_position, positions = self._relative(q, q_thw, k_thw)
        q = torch.cat((self.scaler * q, by_position.to(q.dtype)), 3)
        k = torch.cat((k, positions.to(k.dtype).expand(*k.shape[:2], -1, -1)), 3)
        longer = q.shape[3] - v.shape[3]
        return attention(q, k, F.pad(v, (0, longer)), scale=1.0)[..., : v.shape[3]]

    def _relative(self, q: Tensor, q_thw, k_thw) -> tuple[Tensor, Tensor]:
        """Scores of each query with each place of a key on each axis (B,H,M,t+h+w), and (N,t+h+w), which places a key
        has. Zero for the class token.
        """
        grid = torch.unflatten(q[:, :, 1:], 2, q_thw)
        scores, places = [], []
        tables = (self.rel_pos_t, self.rel_pos_h, self.rel_pos_w)
        for axis, (table, queries, keys) in enumerate(zip(tables, q_thw, k_thw, strict=True)):
            assert table is not None, "a network with relative positions has a table for each axis"
            table = _interpolate(table, 2 * max(queries, keys) - 1)
            by_query = table[_distances(queries, keys, q.device)]  # (queries, keys, d)
            letter = "thw"[axis]
            scores.append(torch.einsum(f"bnthwd,{letter}kd->bnthwk", grid, by_query))
            place = torch.arange(keys, device=q.device).view(-1, *(1,) * (2 - axis)).expand(k_thw).flatten()
            places.append(place[:, None] == torch.arange(keys, device=q.device))
        by_position = torch.cat(scores, 5).flatten(2, 4)
        return F.pad(by_position, (0, 0, 1, 0)), F.pad(torch.cat(places, 1), (0, 0, 1, 0))


def _distances(queries: int, keys: int, device: torch.device) -> Tensor:
    """int64 (queries, keys): rows of a table of relative positions, which has 2 max(queries, keys) - 1."""
    at = torch.arange(queries, device=device)[:, None] * max(keys / queries, 1.0)
    return (at - (torch.arange(keys, device=device)[None, :] + (1.0 - keys)) * max(queries / keys, 1.0)).long()


class ClosedMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` that calls ``F.scaled_dot_product_attention`` itself, where ``ClosedCalls`` sees it."""

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        """As ``nn.MultiheadAttention``; calls with masks or weights are left to it."""
        masked = key_padding_mask is not None or attn_mask is not None or is_causal
        extended = self.bias_k is not None or self.add_zero_attn or not self._qkv_same_embed_dim
        if need_weights or masked or extended or query.dim() != 3:
            masks = (key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
            return super().forward(query, key, value, *masks)
        weights, biases = self.in_proj_weight.chunk(3), (None,) * 3
        if self.in_proj_bias is not None:
            biases = self.in_proj_bias.chunk(3)
        heads, clips_first = (self.num_heads, -1), (query, key, value)
        if not self.batch_first:
            clips_first = tuple(x.transpose(0, 1) for x in clips_first)
        q, k, v = (
            torch.unflatten(F.linear(x if self.batch_first else x.transpose(0, 1), weight, bias), 2, heads).transpose(
                1, 2
            )
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return y if self.batch_first else y.transpose(0, 1), None


class ClosedCalls(TorchFunctionMode):
    """While it is entered, ``F.scaled_dot_product_attention`` is the closed attention.

    Boolean masks, causal and grouped attention, masks that differ between the clips of a batch, and heads above 128 go
    on to PyTorch; under ``sdpa_kernel(SDPBackend.MATH)`` they have a double backward, which keeps the matrices.

    Raises:
        InputError: a call with dropout.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Called by torch for every function of its API."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _scaled_dot_product(*args, **kwargs)
        if func is Tensor.unflatten:  # calls super(), which Dynamo of torch 2.11 does not follow within a mode
            return torch.unflatten(*args, **kwargs)
        return func(*args, **kwargs)


def _scaled_dot_product(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Tensor:
    if dropout_p:
        raise InputError(
            f"the model's attention has dropout {dropout_p}, which the closed attention of a gradient penalty has not; "
            "set it to 0, or use --step.closed-layers off"
        )
    plain: dict[str, Any] = dict(attn_mask=attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa)
    if is_causal or enable_gqa or not _fits(query, value, attn_mask):
        return F.scaled_dot_product_attention(query, key, value, **plain)
    query, key, value = as_autocast(query, key, value)
    lead, (tokens, size) = query.shape[:-2], query.shape[-2:]
    q, k, v = (x.reshape(-1, lead[-1] if lead else 1, *x.shape[-2:]) for x in (query, key, value))
    bias = attn_mask
    if bias is not None:
        bias = bias.reshape(-1, *bias.shape[-2:]).expand(q.shape[1], tokens, k.shape[2]).contiguous()
    return attention(q, k, v, scale=scale, bias=bias).reshape(*lead, tokens, size)


def _fits(query: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    size = query.shape[-1]
    if query.dim() < 2 or size != value.shape[-1] or size > LARGEST_HEAD or query.shape[:-2] != value.shape[:-2]:
        return False
    # (M,N), (H,M,N) or (1,H,M,N): one for all clips
    return mask is None or (mask.is_floating_point() and 2 <= mask.dim() and all(n == 1 for n in mask.shape[:-3]))

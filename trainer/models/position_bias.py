"""Video Swin's relative position bias, looked up once a layer instead of once for every attention weight.

torchvision writes the lookup as an index into a table, ``table[index]`` of shape (N*N, heads) for windows of N tokens.
torch.compile fuses it into the softmax, which then gathers from the table for every window and again for every pass
over a row: on a CPU (AVX2) that made the fused kernel eight times as slow as the plain one, and the compiled step
slower than eager. Its gradient, an indexed put, is a sort on CUDA.

The two ops here are each other's gradient, so they may be differentiated as often as needed; the compiler leaves them
whole. They are custom ops, not an ``autograd.Function``, for the reason given in ``closed_conv``.
"""

import torch
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d


@torch.library.custom_op("unstill::look_up", mutates_args=())
def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Columns ``index`` of the transposed table: table (R, C), index int64 (K,) -> (C, K), contiguous."""
    return table.t().contiguous().index_select(1, index)


@torch.library.custom_op("unstill::add_up", mutates_args=())
def add_up(gradient: Tensor, index: Tensor, rows: int) -> Tensor:
    """The transpose of ``look_up``: gradient (C, K) summed into the (rows, C) of the table."""
    table = gradient.new_zeros(gradient.shape[0], rows)
    return table.index_add_(1, index, gradient).t().contiguous()


@look_up.register_fake
def _(table: Tensor, index: Tensor) -> Tensor:
    return table.new_empty(table.shape[1], index.shape[0])


@add_up.register_fake
def _(gradient: Tensor, index: Tensor, rows: int) -> Tensor:
    return gradient.new_empty(rows, gradient.shape[0])


def _remember_look_up(ctx, inputs, output):
    table, index = inputs
    ctx.save_for_backward(index)
    ctx.rows = table.shape[0]


def _remember_add_up(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


look_up.register_autograd(
    lambda ctx, g: (add_up(g, ctx.saved_tensors[0], ctx.rows), None), setup_context=_remember_look_up
)
add_up.register_autograd(lambda ctx, g: (look_up(g, ctx.saved_tensors[0]), None, None), setup_context=_remember_add_up)


class LookedUpBiasAttention(ShiftedWindowAttention3d):
    """torchvision's attention with the same weights, its bias from ``look_up``."""

    relative_position_index: Tensor
    relative_position_bias_table: nn.Parameter

    def get_relative_position_bias(self, window_size: list[int]) -> Tensor:
        """(1, heads, N, N) for windows of N tokens."""
        tokens = window_size[0] * window_size[1] * window_size[2]
        index = self.relative_position_index[:tokens, :tokens].reshape(-1)
        return look_up(self.relative_position_bias_table, index).view(1, -1, tokens, tokens)


def look_up_position_biases(model: nn.Module) -> int:
    """Let every attention of a torchvision Video Swin look its bias up once, in place; returns how many there were."""
    found = 0
    for module in model.modules():
        if type(module) is ShiftedWindowAttention3d:
            module.__class__ = LookedUpBiasAttention
            found += 1
    return found

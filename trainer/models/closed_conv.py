"""Convolutions whose gradient of a gradient is again a convolution of an ordinary shape.

A convolution y = w * x is bilinear, and so are its two gradients; the three are closed under differentiation:

    conv(x, w)      backward: dgrad(gy, w), wgrad(x, gy)
    dgrad(gy, w)    backward: conv(ggx, w), wgrad(ggx, gy)
    wgrad(x, gy)    backward: dgrad(gy, ggw), conv(x, ggw)

ATen's own double backward computes wgrad(ggx, gy) as a forward convolution whose kernel is the whole output map: the
same number of operations, in a shape that convolution libraries are not tuned for (pytorch issue 54840). On a CPU the
two take the same time; `unstill bench step` measures them on a GPU. A convolution whose kernel is its stride, such as
a patch embedding, becomes a linear layer, whose gradients of any order are matrix products.

Autograd's engine is asked which gradients are wanted (``kernels.inner_gradient``): the inner gradient of a penalty
computes no weight gradient, as with ATen's own convolutions.

They are custom ops, not an ``autograd.Function``: torch.compile gives a Function's inner gradient no graph of its own,
and the compiled gradient of a penalty through one was silently wrong (by 17 % of the largest entry, torch 2.15).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from ...kernels.autocast import as_autocast
from ...kernels.inner_gradient import wanted

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _conv(x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int) -> Tensor:
    y = torch.ops.aten.convolution(x, w, None, stride, padding, dilation, False, [0] * len(stride), groups)
    return _laid_out_like(y, x)


def _dgrad(
    gy: Tensor, w: Tensor, x: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    geometry = (None, stride, padding, dilation, False, [0] * len(stride), groups)
    gx = torch.ops.aten.convolution_backward(gy, x, w, *geometry, [True, False, False])[0]
    return _laid_out_like(gx, x)


def _wgrad(
    x: Tensor, gy: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    geometry = (None, stride, padding, dilation, False, [0] * len(stride), groups)
    gw = torch.ops.aten.convolution_backward(gy, x, w, *geometry, [False, True, False])[1]
    return _laid_out_like(gw, w)


def _right_wgrad(
    x: Tensor, gy: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    if gy.device.type == "cpu" and gy.dtype == torch.bfloat16:
        # oneDNN's is wrong at some shapes where a processor has AVX512-BF16, and partly memory that was never written:
        # x (2,256,2,7,7), kernel 3x3x3, torch 2.14; ATen's own backward has it, too
        return _wgrad(x.float(), gy.float(), w.float(), stride, padding, dilation, groups).to(w.dtype)
    return _wgrad(x, gy, w, stride, padding, dilation, groups)


def _laid_out_like(result: Tensor, example: Tensor) -> Tensor:
    # the library chooses a layout by device and shape; the compiler must know it beforehand
    last_format = CHANNELS_LAST.get(example.dim())
    if last_format and example.is_contiguous(memory_format=last_format) and not example.is_contiguous():
        return result.contiguous(memory_format=last_format)
    return result.contiguous()


conv = torch.library.custom_op("unstill::convolution", _conv, mutates_args=())
dgrad = torch.library.custom_op("unstill::convolution_dgrad", _dgrad, mutates_args=())
wgrad = torch.library.custom_op("unstill::convolution_wgrad", _right_wgrad, mutates_args=())
conv.register_fake(_conv)
dgrad.register_fake(_dgrad)
wgrad.register_fake(_wgrad)


def _remember(ctx, inputs, output):
    *tensors, stride, padding, dilation, groups = inputs
    ctx.save_for_backward(*tensors)
    ctx.geometry = (stride, padding, dilation, groups)


def _conv_backward(ctx, gy):
    x, w = ctx.saved_tensors
    to_x = dgrad(gy, w, x, *ctx.geometry) if wanted(ctx, 0) else None
    to_w = wgrad(x, gy, w, *ctx.geometry) if wanted(ctx, 1) else None
    return to_x, to_w, None, None, None, None


def _dgrad_backward(ctx, ggx):
    gy, w, _ = ctx.saved_tensors  # the third gave its shape only
    to_gy = conv(ggx, w, *ctx.geometry) if wanted(ctx, 0) else None
    to_w = wgrad(ggx, gy, w, *ctx.geometry) if wanted(ctx, 1) else None
    return to_gy, to_w, None, None, None, None, None


def _wgrad_backward(ctx, ggw):
    x, gy, _ = ctx.saved_tensors
    to_x = dgrad(gy, ggw, x, *ctx.geometry) if wanted(ctx, 0) else None
    to_gy = conv(x, ggw, *ctx.geometry) if wanted(ctx, 1) else None
    return to_x, to_gy, None, None, None, None, None


conv.register_autograd(_conv_backward, setup_context=_remember)
dgrad.register_autograd(_dgrad_backward, setup_context=_remember)
wgrad.register_autograd(_wgrad_backward, setup_context=_remember)


@register_flop_formula(torch.ops.unstill.convolution)
def _conv_flops(x, w, *_, out_shape=None, **__):
    return _product_flops(x, w, out_shape)


@register_flop_formula(torch.ops.unstill.convolution_dgrad)
def _dgrad_flops(gy, w, x, *_, out_shape=None, **__):
    return _product_flops(x, w, gy)


@register_flop_formula(torch.ops.unstill.convolution_wgrad)
def _wgrad_flops(x, gy, w, *_, out_shape=None, **__):
    return _product_flops(x, w, gy)


def _product_flops(x, w, y) -> int:
    """Two operations for every element of the kernel and every place of the output: the same for all three."""
    return 2 * x[0] * math.prod(y[2:]) * math.prod(w)


class _Closed:
    """Forward of a convolution with the double backward above; same parameters, same numbers up to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """(B,C,...) -> (B,D,...)."""
        own: Any = self  # a convolution
        x, w, bias = as_autocast(input, own.weight, own.bias)  # autocast knows F.conv3d, not this
        y = conv(x, w, list(own.stride), list(own.padding), list(own.dilation), own.groups)
        return y if bias is None else y + bias.view(-1, *(1,) * len(own.stride))


class ClosedConv2d(_Closed, nn.Conv2d):
    """``nn.Conv2d``, closed."""


class ClosedConv3d(_Closed, nn.Conv3d):
    """``nn.Conv3d``, closed."""


class PatchConv3d(nn.Conv3d):
    """An ``nn.Conv3d`` whose kernel is its stride, as a linear layer on the patches; same parameters."""

    def forward(self, input: Tensor) -> Tensor:
        """(B,C,T,h,w) -> (B,D,T/t,h/p,w/q), of the usual shape, channels last in memory."""
        x = input
        (b, c), (t, p, q) = x.shape[:2], self.stride
        grid = [size // side for size, side in zip(x.shape[2:], self.stride, strict=True)]
        x = x[:, :, : grid[0] * t, : grid[1] * p, : grid[2] * q]  # a convolution ignores what fills no patch
        patches = x.reshape(b, c, grid[0], t, grid[1], p, grid[2], q).permute(0, 2, 4, 6, 1, 3, 5, 7)
        y = F.linear(patches.reshape(b, *grid, c * t * p * q), self.weight.flatten(1), self.bias)
        return y.permute(0, 4, 1, 2, 3)


def close_convolutions(model: nn.Module) -> int:
    """Replace every ``nn.Conv2d`` and ``nn.Conv3d`` with zero padding, in place; returns how many there were.

    Names and shapes of the parameters stay.
    """
    found = 0
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            continue
        plain = type(module).forward in (nn.Conv2d.forward, nn.Conv3d.forward)
        if plain and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            convolution: Any = module
            convolution.__class__ = _replacement(module)
            found += 1
    return found


def _replacement(convolution: nn.Conv2d | nn.Conv3d) -> type[nn.Module]:
    if isinstance(convolution, nn.Conv2d):
        return ClosedConv2d
    patches = convolution.kernel_size == convolution.stride and math.prod(convolution.stride) > 1
    simple = not any(convolution.padding) and set(convolution.dilation) == {1} and convolution.groups == 1
    return PatchConv3d if patches and simple else ClosedConv3d

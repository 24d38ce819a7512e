"""Convolutions whose gradient of a gradient is again a convolution of an ordinary shape.

A convolution y = w * x is bilinear, and so are its two gradients; the three are closed under differentiation:

    conv(x, w)      backward: dgrad(gy, w), wgrad(x, gy)
    dgrad(gy, w)    backward: conv(ggx, w), wgrad(ggx, gy)
    wgrad(x, gy)    backward: dgrad(gy, ggw), conv(x, ggw)

ATen's own double backward computes wgrad(ggx, gy) as a forward convolution whose kernel is the whole output map: the
same number of operations, in a shape that convolution libraries are not tuned for (pytorch issue 54840). On a CPU the
two take the same time; `unstill bench step` measures them on a GPU.

They are custom ops, not an ``autograd.Function``: torch.compile gives a Function's inner gradient no graph of its own,
and the compiled gradient of a penalty through one was silently wrong (by 17 % of the largest entry, torch 2.15).
"""

import torch
from torch import Tensor, nn


def _conv(x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int) -> Tensor:
    y = torch.ops.aten.convolution(x, w, None, stride, padding, dilation, False, [0, 0, 0], groups)
    return _laid_out_like(y, x)


def _dgrad(
    gy: Tensor, w: Tensor, x: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    geometry = (None, stride, padding, dilation, False, [0, 0, 0], groups)
    gx = torch.ops.aten.convolution_backward(gy, x, w, *geometry, [True, False, False])[0]
    return _laid_out_like(gx, x)


def _wgrad(
    x: Tensor, gy: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    geometry = (None, stride, padding, dilation, False, [0, 0, 0], groups)
    gw = torch.ops.aten.convolution_backward(gy, x, w, *geometry, [False, True, False])[1]
    return _laid_out_like(gw, w)


def _laid_out_like(result: Tensor, example: Tensor) -> Tensor:
    # the library chooses a layout by device and shape; the compiler must know it beforehand
    last = example.is_contiguous(memory_format=torch.channels_last_3d) and not example.is_contiguous()
    return result.contiguous(memory_format=torch.channels_last_3d if last else torch.contiguous_format)


conv = torch.library.custom_op("unstill::conv3d", _conv, mutates_args=())
dgrad = torch.library.custom_op("unstill::conv3d_dgrad", _dgrad, mutates_args=())
wgrad = torch.library.custom_op("unstill::conv3d_wgrad", _wgrad, mutates_args=())
conv.register_fake(_conv)
dgrad.register_fake(_dgrad)
wgrad.register_fake(_wgrad)


def _remember(ctx, inputs, output):
    *tensors, stride, padding, dilation, groups = inputs
    ctx.save_for_backward(*tensors)
    ctx.geometry = (stride, padding, dilation, groups)


def _conv_backward(ctx, gy):
    x, w = ctx.saved_tensors
    need_x, need_w = ctx.needs_input_grad[:2]
    to_x = dgrad(gy, w, x, *ctx.geometry) if need_x else None
    to_w = wgrad(x, gy, w, *ctx.geometry) if need_w else None
    return to_x, to_w, None, None, None, None


def _dgrad_backward(ctx, ggx):
    gy, w, _ = ctx.saved_tensors  # the third gave its shape only
    need_gy, need_w = ctx.needs_input_grad[:2]
    to_gy = conv(ggx, w, *ctx.geometry) if need_gy else None
    to_w = wgrad(ggx, gy, w, *ctx.geometry) if need_w else None
    return to_gy, to_w, None, None, None, None, None


def _wgrad_backward(ctx, ggw):
    x, gy, _ = ctx.saved_tensors
    need_x, need_gy = ctx.needs_input_grad[:2]
    to_x = dgrad(gy, ggw, x, *ctx.geometry) if need_x else None
    to_gy = conv(x, ggw, *ctx.geometry) if need_gy else None
    return to_x, to_gy, None, None, None, None, None


conv.register_autograd(_conv_backward, setup_context=_remember)
dgrad.register_autograd(_dgrad_backward, setup_context=_remember)
wgrad.register_autograd(_wgrad_backward, setup_context=_remember)


class ClosedConv3d(nn.Conv3d):
    """``nn.Conv3d`` with the double backward above; same parameters, same numbers up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,T,h,w) -> (B,D,T',h',w')."""
        w, bias = self.weight, self.bias
        if torch.is_autocast_enabled(x.device.type):  # autocast knows F.conv3d, not this
            dtype = torch.get_autocast_dtype(x.device.type)
            x, w, bias = x.to(dtype), w.to(dtype), None if bias is None else bias.to(dtype)
        y = conv(x, w, list(self.stride), list(self.padding), list(self.dilation), self.groups)
        return y if bias is None else y + bias.view(-1, 1, 1, 1)


def close_convolutions(model: nn.Module) -> int:
    """Turn every ``nn.Conv3d`` with zero padding into a ``ClosedConv3d``, in place; returns how many there were."""
    found = 0
    for module in model.modules():
        plain = isinstance(module, nn.Conv3d) and type(module).forward is nn.Conv3d.forward
        if plain and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = ClosedConv3d
            found += 1
    return found

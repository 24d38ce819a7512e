"""The elementwise part of an MLP's double backward: products with gelu's first and second derivative, in one pass.

    gelu(h) = h Phi(h),   gelu'(h) = Phi(h) + h phi(h),   gelu''(h) = (2 - h^2) phi(h)

with Phi and phi the distribution function and density of the standard normal (the exact gelu, not its tanh form).
Products with gelu' alone are one pass already, ``aten.gelu_backward``. With gelu'' as well, ATen needs eight passes
that read and write everything; the Triton kernel reads h, p, z once and writes each result once.
"""

# pyright: reportArgumentType=false
# Triton types a launch as a call of the kernel, whose compile-time arguments (tl.constexpr) are plain numbers there.

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch_configs import LAUNCH, on_device_of

# elements of a program: 8 a thread, so that a thread's loads of 16-bit values are 16 bytes wide
BLOCK = 2048
DENSITY_AT_ZERO = 1 / math.sqrt(2 * math.pi)

gelu_into = torch.ops.aten.gelu.out
gelu_backward_into = torch.ops.aten.gelu_backward.grad_input


def second_order_torch(
    h: Tensor, p: Tensor, z: Tensor, *, first: Tensor, second: Tensor, by_p: Tensor | None, scratch: Tensor
) -> None:
    """The CPU form of ``second_order``: eight passes (nine with ``by_p``) over tensors that fit into a cache."""
    if h.dtype in (torch.bfloat16, torch.float16):  # intermediate results in float32, as in the kernel
        wide = [torch.empty_like(h, dtype=torch.float32) for _ in range(4)]
        results = dict(first=wide[0], second=wide[1], by_p=None if by_p is None else wide[2])
        second_order_torch(h.float(), p.float(), z.float(), **results, scratch=wide[3])
        for result, value in zip((first, second, by_p), wide, strict=False):
            if result is not None:
                result.copy_(value)
        return
    torch.mul(h, h, out=second).mul_(-0.5)
    torch.exp(second, out=scratch)
    torch.addcmul(scratch, second, scratch, out=second)  # (1 - h^2 / 2) exp(-h^2 / 2)
    second.mul_(p).mul_(z).mul_(2 * DENSITY_AT_ZERO)
    gelu_backward_into(z, h, grad_input=first)
    if by_p is not None:
        gelu_backward_into(p, h, grad_input=by_p)


@triton.jit
def gelu_second_order_kernel(
    h, p, z, first, second, by_p, elements, BY_P: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = at < elements
    x = tl.load(h + at, mask=valid, other=0.0).to(tl.float32)
    a = tl.load(p + at, mask=valid, other=0.0).to(tl.float32)
    b = tl.load(z + at, mask=valid, other=0.0).to(tl.float32)
    density = tl.exp(-0.5 * x * x) * 0.3989422804014327
    slope = 0.5 + 0.5 * tl.erf(x * 0.7071067811865476) + x * density
    dtype = first.dtype.element_ty
    tl.store(first + at, (b * slope).to(dtype), mask=valid)
    tl.store(second + at, (a * b * density * (2.0 - x * x)).to(dtype), mask=valid)
    if BY_P:
        tl.store(by_p + at, (a * slope).to(dtype), mask=valid)


def second_order_launch(h, p, z, first, second, by_p):
    """(arguments, constexpr arguments) of the kernel."""
    present = by_p is not None
    return (h, p, z, first, second, by_p if present else first, h.numel()), dict(BY_P=present, BLOCK=BLOCK)


def second_order_triton(
    h: Tensor, p: Tensor, z: Tensor, *, first: Tensor, second: Tensor, by_p: Tensor | None, scratch: Tensor | None
) -> None:
    """The CUDA form of ``second_order``; on CPU tensors only under Triton's interpreter."""
    if h.dtype == torch.float64:  # for tests; the kernel computes in float32
        scratch = torch.empty_like(h)
        return second_order_torch(h, p, z, first=first, second=second, by_p=by_p, scratch=scratch)
    arguments, constants = second_order_launch(h, p, z, first, second, by_p)
    with on_device_of(h):
        gelu_second_order_kernel[(triton.cdiv(h.numel(), BLOCK),)](*arguments, **constants, **LAUNCH)


def second_order(
    h: Tensor, p: Tensor, z: Tensor, *, first: Tensor, second: Tensor, by_p: Tensor | None, scratch: Tensor | None
) -> None:
    """Fill ``first`` with z gelu'(h), ``second`` with z p gelu''(h), and ``by_p``, if given, with p gelu'(h).

    All arguments are contiguous, of one shape and dtype. Outputs may not share memory with inputs, except ``first``
    with ``z`` and ``by_p`` with ``p``. ``scratch`` is overwritten on a CPU and may be None elsewhere.
    """
    form = second_order_triton if h.is_cuda else second_order_torch
    form(h, p, z, first=first, second=second, by_p=by_p, scratch=scratch)

"""Ahead-of-time compilation of every committed launch configuration, on any machine: registers, spills, shared memory.

    python -m unstill.kernels.aot            # a JSON list on standard output

It catches what Triton's interpreter forgives (types, shapes that are no power of two, arguments that must be constant)
and a configuration that would spill. The arguments are those that the launching functions themselves build, on tensors
without storage, so what is compiled here is what runs. Not under ``TRITON_INTERPRET=1``, which replaces the compiler.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from .attention.layout import empty_like_tokens
from .attention.triton_form import Launch, derivative_launches, empty_statistic, forward_launches, partial_bias
from .clip_prep.torch_form import allocate_clips, split_clips
from .clip_prep.triton_form import clip_launch, clip_prep_kernel
from .gelu_derivatives import gelu_second_order_kernel, second_order_launch
from .launch_configs import CLIP_TILES, LAUNCH
from .static_losses.torch_form import allocate_losses
from .static_losses.triton_form import row_launch, static_losses_backward_kernel, static_losses_kernel
from .step_boundary import step_boundary_kernel

CAPABILITY = 90
POINTERS = {
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
}

TILE = ("BLOCK", "BLOCK_T", "VEC", "BLOCK_C", "BLOCK_M", "BLOCK_N")


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def clip_arguments(side: int, dtype: torch.dtype, channels_last: bool, static: str, whole: bool = False):
    """What ``clip_prep`` passes for 32 clips of 32 frames, cropped to ``side`` x ``side`` out of 256 x 340."""
    frames = meta(32, 32, 256, 340, 3, dtype=torch.uint8)
    index = [meta(32, dtype=torch.int64) for _ in range(4)]
    size = [side, side]
    if whole:
        frames, index = meta(32, 32, side, side, 3, dtype=torch.uint8), [None] * 4
    buffer, still = allocate_clips(frames, size, dtype, channels_last, static, False)
    motion, stills = split_clips(buffer, still, 32, static, False)
    top, left, flip, t_idx = index
    _, arguments, constants = clip_launch(frames, top, left, flip, t_idx, size, [0.4] * 3, [0.2] * 3, motion, stills)
    return arguments, constants


def loss_arguments(classes: int, dtype: torch.dtype, soft: bool, smoothing: float):
    """What ``static_losses`` passes for 64 rows."""
    logits = meta(64, classes, dtype=dtype)
    target = meta(32, classes) if soft else meta(32, dtype=torch.int64)
    arguments, constants = row_launch(logits, target, 32, smoothing, -100)
    return logits, arguments, constants, allocate_losses(logits)


def attention_launches(
    tokens: int, size: int, heads: int, dtype: torch.dtype, biased: bool, e: bool = False
) -> Iterator[Launch]:
    """All launches of the three passes for 8 windows whose q, k, v and cotangents are packed (B, N, 3, H, d).

    ``biased``: with a float32 bias and shifted windows. ``e``: with a cotangent of the bias's gradient."""
    q, k, v = (part.transpose(1, 2) for part in meta(8, tokens, 3, heads, size, dtype=dtype).unbind(2))
    bias = meta(heads, tokens, tokens) if biased else None
    regions = meta(4, tokens, dtype=torch.int8) if biased else None
    out, statistic = empty_like_tokens(q), empty_statistic(q)
    score, kept = (bias, regions, 0.125), (out, statistic, statistic)
    yield from forward_launches(q, k, v, bias, regions, 0.125, out, statistic)
    for second in (False, True):
        cotangents = (q, k, v, bias if e else None) if second else (None,) * 4
        own = (out, statistic, statistic) if second else (None,) * 3  # g_dO, t, x
        g_bias = None if bias is None else partial_bias(q, bias, "bias2" if second else "bias")
        gradients = (own[0], out, out, out, g_bias, *own[1:])
        arguments: tuple[Any, ...] = (out, q, k, v, *cotangents, *score, *kept, *gradients)
        yield from derivative_launches(*arguments)


def attention_configurations() -> Iterator[tuple[str, dict, object, tuple, dict, dict]]:
    """Swin's windows, vision transformers, and a head of every size with everything at once."""
    half = torch.bfloat16
    modes = [(392, 32, 3, half, True, False), (1568, 64, 12, half, False, False), (2048, 128, 8, half, False, False)]
    modes += [(392, size, 4, half, True, True) for size in (16, 32, 64, 128)]
    modes += [(197, 80, 16, torch.float16, False, False)]
    for tokens, size, heads, dtype, biased, e in modes:
        for one in attention_launches(tokens, size, heads, dtype, biased, e):
            if e and size == 32 and not one.name.endswith("2"):
                continue  # only the double backward has a cotangent of the bias's gradient
            described = dict(tokens=tokens, head_dim=size, dtype=str(dtype)[6:], bias=biased, bias_cotangent=e)
            options = one.options | dict(enable_fp_fusion=True)
            yield f"attention_{one.name}", described, one.kernel, one.arguments, one.constants, options


def configurations() -> Iterator[tuple[str, dict, object, tuple, dict, dict]]:
    """(kernel, description, jitted function, arguments, constants, options): the launch tables in every mode."""
    for configuration in step_configurations():
        yield *configuration, LAUNCH
    yield from attention_configurations()


def step_configurations() -> Iterator[tuple[str, dict, object, tuple, dict]]:
    """The kernels before and after the network, without their options."""
    clips = []
    for (channels_last, itemsize), table in CLIP_TILES.items():
        for least, _ in table:
            side = 224 if least else 32
            for dtype in (torch.bfloat16, torch.float16) if itemsize == 2 else (torch.float32,):
                statics = ("none", "frame", "full") if least and dtype != torch.float16 else ("full",)
                clips += [(side, dtype, channels_last, static, False) for static in statics]
    # odd sizes (stores of one element), and neither crop nor flip
    clips += [(73, torch.bfloat16, False, "full", False), (224, torch.bfloat16, False, "full", True)]
    for side, dtype, channels_last, static, whole in clips:
        arguments, constants = clip_arguments(side, dtype, channels_last, static, whole)
        layout = "channels_last_3d" if channels_last else "ncdhw"
        described = dict(crop=side, dtype=str(dtype)[6:], layout=layout, static=static, whole_frame=whole)
        yield "clip_prep", described, clip_prep_kernel, arguments, constants

    half, single = torch.bfloat16, torch.float32
    modes = [(400, half, False, 0.0), (400, half, True, 0.1), (400, single, False, 0.0)]
    modes += [(1001, half, False, 0.1), (100_000, half, False, 0.0), (100_000, single, True, 0.1)]
    for classes, dtype, soft, smoothing in modes:
        logits, arguments, constants, losses = loss_arguments(classes, dtype, soft, smoothing)
        described = dict(classes=classes, dtype=str(dtype)[6:], soft=soft, smoothing=smoothing)
        for weighted in (False, True):
            rows = [meta(64) if weighted else None for _ in range(3)]
            how = described | dict(weighted=weighted)
            yield "static_losses", how, static_losses_kernel, (*arguments, *losses, *rows), constants
            backward = (meta(64), meta(64), rows[0], 0, *arguments, losses[1], losses[3])
            backward = (*backward, torch.empty_like(logits), classes)
            yield "static_losses_backward", how, static_losses_backward_kernel, backward, constants

    boundaries = [(224, 400, False, 0.0), (224, 400, True, 0.1), (224, 100_000, False, 0.0), (32, 1001, False, 0.1)]
    for channels_last in (False, True):
        for side, classes, soft, smoothing in boundaries:
            logits, rows, row_constants, losses = loss_arguments(classes, half, soft, smoothing)
            weights = (meta(64), meta(64), meta(64), torch.empty_like(logits), classes, 64)
            arguments, constants = clip_arguments(side, half, channels_last, "full")
            layout = "channels_last_3d" if channels_last else "ncdhw"
            described = dict(crop=side, dtype="bfloat16", layout=layout, static="full")
            described |= dict(classes=classes, soft=soft, smoothing=smoothing)
            both = (*rows, *losses, *weights, *arguments)
            yield "step_boundary", described, step_boundary_kernel, both, row_constants | constants

    for dtype in (half, torch.float16, single):
        for by_p in (False, True):
            h, p, z, first, second, third = (meta(50176, 384, dtype=dtype) for _ in range(6))
            arguments, constants = second_order_launch(h, p, z, first, second, third if by_p else None)
            described = dict(dtype=str(dtype)[6:], by_p=by_p)
            yield "gelu_second_order", described, gelu_second_order_kernel, arguments, constants


def source_of(kernel, arguments: tuple, constants: dict) -> ASTSource:
    """The specialisation that Triton's launcher would choose for these arguments."""
    names = kernel.arg_names
    signature, values, hints = {}, {}, {}
    for position, name in enumerate(names):
        value = constants[name] if name in constants else arguments[position]
        specialised = not kernel.params[position].do_not_specialize
        if name in constants or value is None or (isinstance(value, int) and value == 1 and specialised):
            signature[name], values[position,] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], hints[position,] = POINTERS[value.dtype], [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and specialised:
                hints[position,] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=hints)


def assembled(ptx: str, fusion: bool) -> dict[str, int]:
    """Registers per thread and spilled bytes, as NVIDIA's assembler reports them."""
    (architecture,) = _found(r"^\.target (\w+)", ptx)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [get_ptxas(CAPABILITY).path, "-v", f"-arch={architecture}", str(path), "-o", os.devnull]
        if not fusion:
            command.insert(1, "--fmad=false")
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (registers,) = _found(r"Used (\d+) registers", log)
    stores, loads = _found(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    return dict(registers=int(registers), spill_store_bytes=int(stores), spill_load_bytes=int(loads))


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"no {pattern!r} in what NVIDIA's assembler was given or said: has its form changed?")
    return match.groups()


def widest_store(ptx: str) -> int:
    """Bytes that one thread writes to global memory with its widest store."""
    widths = [1]
    for vector, bits in re.findall(r"st\.global\S*?(?:\.v(\d))?\.b(\d+)", ptx):
        widths.append(int(vector or 1) * int(bits) // 8)
    return max(widths)


def sum_layouts(ttgir: str) -> str:
    """How the tiles that are summed lie in the threads: it decides the order of a sum, so its bits."""
    layouts = dict(re.findall(r"^(#\w+) = #ttg\.blocked<\{(.*)\}>", ttgir, re.MULTILINE))
    summed = set(re.findall(r"\) : \(tensor<([^)]*f32, [^)]*)>\)", ttgir))
    return "; ".join(sorted(re.sub(r"#\w+\b(?!\.)", lambda name: layouts.get(name[0], name[0]), s) for s in summed))


def report() -> list[dict]:
    """One row per configuration, for compute capability 9.0."""
    if knobs.runtime.interpret:
        raise RuntimeError("ahead-of-time compilation needs Triton's compiler: unset TRITON_INTERPRET")
    rows = []
    for name, described, kernel, arguments, constants, options in configurations():
        source = source_of(kernel, arguments, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options=options)
        tile = {key.lower(): constants[key] for key in TILE if key in constants} | options
        ptx = compiled.asm["ptx"]
        used: dict[str, Any] = assembled(ptx, tile.pop("enable_fp_fusion")) | dict(
            shared_bytes=compiled.metadata.shared, widest_store_bytes=widest_store(ptx)
        )
        used["wgmma"] = ptx.count("wgmma.mma_async")  # 0: products, if any, fall back to the older mma.sync
        used["barriers"] = ptx.count("bar.sync")
        used["sum_layouts"] = sum_layouts(compiled.asm["ttgir"])
        rows.append(dict(kernel=name, **described, **tile, **used))
        print(f"{len(rows)}: {name} {described} {used}", file=sys.stderr)
    return rows


if __name__ == "__main__":
    print(json.dumps(report(), indent=1))

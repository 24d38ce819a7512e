"""The kernels against eager and compiled torch, and against what the memory allows.

On a GPU: times of every provider in one process, GB/s, and the fraction of a device copy measured in the same run; the
host's time for a call apart from the device's.
Without one: the bytes each must move and the report of the ahead-of-time compilation for sm_90; neither is a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...kernels import clip_prep, step_boundary
from ...kernels.launch_configs import ClipTile
from ..harness.compiled_kernels import aot_rows, write_aot
from ..harness.gpu_clock import device_milliseconds, host_milliseconds
from ..harness.kernel_providers import (
    MEAN,
    STD,
    ClipInputs,
    eager_bf16,
    eager_fp32,
    gathered,
    loss_inputs,
    our_losses,
    plain_losses,
)
from ..harness.planned_seconds import START_SECONDS
from ..harness.record import ResultFile, spread
from ..harness.row import Role, Row
from ..harness.section import Chart, Section

NOT_TIMES = "No GPU on this machine: bytes are predictions from the shapes, not measurements, and no time is reported."
PROVIDERS = {  # name in the rows -> name that people read
    "triton": "unstill (Triton)",
    "triton compiled": "unstill (Triton) in torch.compile",
    "compiled": "torch.compile",
    "eager bf16": "eager torch, bf16",
    "eager fp32": "eager torch, fp32",
    "eager": "eager torch",
    "torch": "torch",
}
STATIC = {"frame": "static clip as one frame", "full": "static clip written out"}

SECTIONS = {
    "kernels": Section(
        title="Kernels: frames to clips, logits to losses",
        text="Triton against torch, and what the memory allows.",
        order=50,
        picture="kernels",
        charts={
            "clip_prep": Chart(title="clip_prep: frames to both clips", reading="One training batch."),
            "static_losses": Chart(title="static_losses: losses and gradient", reading="In one pass over the logits."),
            "bytes": Chart(
                title="Bytes that making both clips must move",
                reading="Predicted from the shapes, not measured. For torch.compile it is the best case.",
            ),
        },
    ),
    "kernels_sm90": Section(
        title="Kernels, compiled for sm_90",
        text="What the compiler reports without running them.",
        order=51,
        picture="kernels",
        charts={
            "registers": Chart(
                title="Registers of the compiled kernels",
                reading="The configuration of each that needs most registers, compiled for sm_90 by ptxas. Up to 64, a "
                "multiprocessor holds four programs of 256 threads.",
                main=False,
            ),
            "attention-registers": Chart(
                title="Registers of the compiled attention kernels",
                reading="The configuration of each that needs most, of 255 that a thread can have; a multiprocessor "
                "holds at least two programs of all.",
                main=False,
            ),
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class KernelsBench:
    """Sizes of the kernel benchmark; the defaults are a training batch."""

    out: Path | None = None
    """Folder of the result files; bench/results by default."""
    batch: int = 32
    """Clips."""
    frames: int = 32
    """Frames per clip."""
    height: int = 256
    """Height of the frames before the crop, pixels."""
    width: int = 344
    """Width of the frames before the crop, pixels."""
    size: int = 224
    """Side of the square crop, pixels."""
    classes: tuple[int, ...] = (400, 100_000)
    """Numbers of classes for static_losses, each with 2 * batch rows."""
    milliseconds: int = 200
    """Time spent on each measurement."""
    aot: bool = True
    """Compile for sm_90 and write kernels_sm90.json."""
    tune: bool = False
    """Also time other launch configurations of clip_prep, to revise the table in kernels/launch_configs.py."""


def run(config: KernelsBench) -> Path:
    """Measure (or, without a GPU, predict), print the tables, and return the result file."""
    if config.aot:
        print(f"written: {write_aot(aot_rows(), config.out)}")
    notes = [
        "kind=predicted: bytes counted from the shapes. kind=measured: time on the GPU, L2 flushed before each call, "
        "which waits in the GPU's queue until the host has made it; host_ms is the host's time for a call. With "
        "cudagraph=true calls in one CUDA graph, not flushed. gb_s counts the bytes that the result needs, not "
        "those the provider moves; of_copy is gb_s over that of a device copy of 1 GiB in the same run."
    ]
    gpu = torch.cuda.is_available()
    if not gpu:
        notes.append(NOT_TIMES)
    results = ResultFile("kernels", out=config.out, notes=notes)
    results.add(*predicted(config, drawn=not gpu))
    if gpu:
        measure(config, torch.device("cuda"), results)
    results.show("kernels")
    return results.finish()


_MOVES = {  # bytes that a provider reads and writes for each element of a bfloat16 clip
    # crops of which half are flipped, stacked: 3; float: 5; / 255, - mean, / std: 8 each; permuted: 8; bfloat16: 6
    "eager fp32": 3 + 5 + 3 * 8 + 8 + 6,
    # the same, converted to bfloat16 first and then in place: four roundings instead of one
    "eager bf16": 3 + 3 + 3 * 4 + 4,
    "compiled": 3,
    "triton": 3,
}


def clip_bytes(config: KernelsBench, provider: str, static: str) -> float:
    """Bytes read and written in device memory per call, for bfloat16 clips."""
    elements = config.batch * config.frames * config.size**2 * 3
    static_out = {"none": 0, "frame": 2 / config.frames, "full": 2}[static]
    return elements * (_MOVES[provider] + static_out)


def predicted(config: KernelsBench, drawn: bool = True) -> list[Row]:
    """What each provider must move, MB; ``drawn``: whether the report draws it, as it does where nothing is timed."""
    shape = f"{config.batch}x{config.frames}x{config.size}x{config.size}"
    rows = []
    for static in ("frame", "full"):
        moved = {provider: clip_bytes(config, provider, static) for provider in PROVIDERS if provider in _MOVES}
        for provider, count in sorted(moved.items(), key=lambda item: (item[0] != "triton", item[1])):
            facts: dict[str, Any] = {"kernel": "clip_prep", "provider": provider, "shape": shape, "static": static}
            facts["times_triton"] = count / moved["triton"]
            figure = "bytes" if drawn else ""
            rows.append(_predicted(count, facts, figure=figure, group=f"{shape}, {STATIC[static]}"))
    for classes in config.classes:
        logits = 2 * config.batch * classes * 2  # bfloat16
        facts = {"kernel": "static_losses", "provider": "triton", "shape": f"{2 * config.batch}x{classes}"}
        rows.append(_predicted(3 * logits, facts))  # read, read, gradient written
    return rows


def _predicted(count: float, facts: dict, **drawn) -> Row:
    title = f"{facts['kernel']}, {facts['provider']}, bytes moved, predicted"
    said: dict[str, Any] = {"title": title, "label": PROVIDERS[facts["provider"]], "role": _role(facts["provider"])}
    return Row(value=count / 1e6, unit="MB", better="lower", **said, **drawn, facts={"kind": "predicted", **facts})


def _role(provider: str) -> Role:
    return "ours" if provider.startswith("triton") else "peer"


def clip_inputs(config: KernelsBench, device: torch.device) -> ClipInputs:
    """Frames and crops of the configured sizes."""
    return ClipInputs.draw(
        device,
        batch=config.batch,
        frames=config.frames,
        height=config.height,
        width=config.width,
        size=config.size,
    )


def milliseconds(function: Callable[[], object], config: KernelsBench, graph: bool = False) -> dict[str, float]:
    """p20, p50 and p80 of one call on the GPU, ms; ``graph``: of calls in one CUDA graph, without L2 flush."""
    if not graph:
        return device_milliseconds(function, config.milliseconds)
    from triton import testing

    bench: Any = testing.do_bench_cudagraph  # three numbers for three quantiles
    middle, low, high = bench(function, rep=config.milliseconds, quantiles=[0.5, 0.2, 0.8])
    return dict(p20=low, p50=middle, p80=high)


def measure(config: KernelsBench, device: torch.device, results: ResultFile) -> None:
    """All measurements, each written as it comes; ratios are against the same run's copy and Triton rows."""
    copy_rate = measure_copy(config, device, results)
    measure_clips(config, device, copy_rate, results)
    measure_losses(config, device, results)
    if config.tune:
        measure_tiles(config, device, copy_rate, results)


def _measured(timed: dict[str, float], facts: dict, **drawn) -> Row:
    title = f"{facts['kernel']}, {facts['provider']}, {facts['shape']}"
    said: dict[str, Any] = {"title": title, "label": PROVIDERS[facts["provider"]], "role": _role(facts["provider"])}
    return Row(**spread(timed), unit="ms", better="lower", **(said | drawn), facts={"kind": "measured", **facts})


def measure_copy(config: KernelsBench, device: torch.device, results: ResultFile) -> float:
    """GB/s of a device copy, read plus write: the speed limit."""
    source = torch.empty(2**30 if device.type == "cuda" else 2**10, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timed = milliseconds(lambda: target.copy_(source), config)
    rate = 2 * source.nbytes / timed["p50"] / 1e6
    facts = {"kernel": "copy", "provider": "torch", "shape": f"{source.nbytes} B", "gb_s": rate}
    results.add(_measured(timed, facts, role="limit"))
    return rate


def measure_clips(config: KernelsBench, device: torch.device, copy_rate: float, results: ResultFile) -> None:
    """clip_prep by every provider, and step_boundary, whose ratio to clip_prep is what the fused losses cost."""
    inputs = clip_inputs(config, device)
    index = (inputs.frames, inputs.top, inputs.left, inputs.flip, inputs.t_idx, inputs.size)
    shape = f"{config.batch}x{config.frames}x{config.size}x{config.size}"
    compiled = torch.compile(gathered, fullgraph=True, dynamic=False)
    losses = loss_inputs(2 * config.batch, config.classes[0], device)
    logits = losses[0].detach()
    for layout in ("ncdhw", "channels_last_3d"):
        for static in ("frame", "full"):
            options = inputs.options(static, layout)
            providers = {
                "triton": lambda o=options: clip_prep(inputs.frames, **o),
                "compiled": lambda s=static, at=layout: compiled(*index, s, at),
            }
            if layout == "ncdhw":
                providers["eager bf16"] = lambda s=static: eager_bf16(inputs, s)
                providers["eager fp32"] = lambda s=static: eager_fp32(inputs, s)
            described = dict(shape=shape, static=static, layout=layout)
            drawn = {"figure": "clip_prep", "group": f"{STATIC[static]}, {layout}"}
            ours = None
            for provider, function in providers.items():
                timed = milliseconds(function, config)
                # useful bytes, the same for all: what the result needs, not what the provider happens to move
                useful = clip_bytes(config, "triton", static)
                if ours is None:
                    ours = timed["p50"]
                    results.add(_copy_limit(useful / copy_rate / 1e6, drawn, described))
                rate = useful / timed["p50"] / 1e6
                ratios = dict(gb_s=rate, of_copy=rate / copy_rate, times_triton=timed["p50"] / ours)
                ratios["host_ms"] = host_milliseconds(function)
                results.add(
                    _measured(timed, dict(kernel="clip_prep", provider=provider, **described, **ratios), **drawn)
                )

            def fused(options: dict = options) -> object:
                return step_boundary(logits, losses[1], config.batch, *losses[2:], inputs.frames, **options)

            timed = milliseconds(fused, config)
            ratio = {} if ours is None else dict(times_clip_prep=timed["p50"] / ours)
            ratio["host_ms"] = host_milliseconds(fused)
            results.add(_measured(timed, dict(kernel="step_boundary", provider="triton", **described, **ratio)))


def planned(config: KernelsBench) -> float:
    """Seconds that a GPU machine should need at most."""
    clips, losses = 4 * 3 + 4, (len(config.classes) + 1) * 2 * 4
    compiled = 4 + 2 * (len(config.classes) + 1)  # 3 s each: with six of them all took 26 s on a machine with an H200
    each = 3 * config.milliseconds / 1e3 + 0.3  # with what comes before a measurement
    return START_SECONDS + (25 if config.aot else 0) + 3 * compiled + (clips + losses + 1) * each


def _copy_limit(ms: float, drawn: dict[str, Any], described: dict) -> Row:
    said: dict[str, Any] = {"title": "device copy of the same bytes", "role": "limit"}
    return Row(value=ms, unit="ms", better="lower", **said, **drawn, facts={"kind": "measured", **described})


def measure_losses(config: KernelsBench, device: torch.device, results: ResultFile) -> None:
    """Losses and gradient with respect to the logits, as calls and captured in a CUDA graph.

    ``triton compiled`` is what a compiled training step does, where the sum over rows is compiled with the rest.
    """
    compiled, fused = (torch.compile(f, fullgraph=True, dynamic=False) for f in (plain_losses, our_losses))
    providers = {"triton": our_losses, "triton compiled": fused, "compiled": compiled, "eager": plain_losses}
    for count, classes in [(2 * config.batch, c) for c in config.classes] + [(16 * config.batch, config.classes[-1])]:
        inputs = loss_inputs(count, classes, device)
        for graph in (False, True):
            group = f"{count}x{classes} logits" + (", CUDA graph" if graph else "")
            ours = None
            for provider, function in providers.items():

                def both(function: Callable = function, inputs: tuple = inputs) -> object:
                    return torch.autograd.grad(function(*inputs), inputs[0])

                timed = milliseconds(both, config, graph)
                ours = ours or timed["p50"]
                described = dict(kernel="static_losses", provider=provider, shape=f"{count}x{classes}", cudagraph=graph)
                rate = 3 * inputs[0].nbytes / timed["p50"] / 1e6
                ratios = dict(gb_s=rate, times_triton=timed["p50"] / ours)
                if not graph:
                    ratios["host_ms"] = host_milliseconds(both)
                results.add(_measured(timed, described | ratios, figure="static_losses", group=group))


def measure_tiles(config: KernelsBench, device: torch.device, copy_rate: float, results: ResultFile) -> None:
    """Other tiles for clip_prep, for revising the committed table by hand; the fastest first."""
    from ...kernels.clip_prep.triton_form import clip_prep_triton

    inputs = clip_inputs(config, device)
    index = (inputs.frames, inputs.top, inputs.left, inputs.flip, inputs.t_idx, [inputs.size] * 2, MEAN, STD)
    rows = []
    for channels_last in (False, True):
        tiles = [ClipTile(b, t, v) for b in (256, 512, 1024, 2048) for t in (1, 2, 4, 8) for v in (1, 2, 4, 8)]
        for tile in tiles:
            if not 2 <= tile.block * tile.frames / 256 <= 32:  # elements per thread
                continue

            def one(tile: ClipTile = tile, channels_last: bool = channels_last) -> object:
                return clip_prep_triton(*index, torch.bfloat16, channels_last, "full", False, tile=tile)

            timed = milliseconds(one, config)
            rate = clip_bytes(config, "triton", "full") / timed["p50"] / 1e6
            facts = dict(kind="tuned", kernel="clip_prep", static="full", channels_last=channels_last)
            facts |= dict(tile=str(tuple(tile)), gb_s=rate, of_copy=rate / copy_rate)
            rows.append(Row(title=f"clip_prep, tile {tuple(tile)}", **spread(timed), unit="ms", facts=facts))
    results.add(*sorted(rows, key=lambda row: (row.facts["channels_last"], row.value or 0)))

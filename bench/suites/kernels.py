"""The kernels beside eager and compiled torch, and beside what the memory allows.

On a GPU: times of every provider in one process, GB/s, and the fraction of a device copy measured in the same run.
Without one: the bytes each must move and the report of the ahead-of-time compilation for sm_90; neither is a time.
"""

import dataclasses
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import clip_prep, static_losses, step_boundary, weighted_loss
from ...kernels.launch_configs import ClipTile
from ..harness import record

MEAN, STD = (0.43, 0.39, 0.35), (0.22, 0.21, 0.25)
AOT_FILE = "kernels_sm90.json"
NOT_TIMES = "No GPU on this machine: bytes are predictions from the shapes, not measurements, and no time is reported."


@dataclasses.dataclass(frozen=True, kw_only=True)
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
        rows = aot_rows()
        record.show("compiled ahead of time for sm_90: not a measurement of speed", summary(rows))
        print(f"written: {write_aot(rows, config.out)}")
    rows = predicted(config)
    record.show("bytes moved per call, predicted", rows)
    notes = [
        "kind=predicted: bytes counted from the shapes. kind=measured: triton.testing.do_bench, L2 flushed between "
        "calls; with cudagraph=true do_bench_cudagraph, not flushed. gb_s counts the bytes that the result needs, not "
        "those the provider moves; of_copy is gb_s over that of a device copy of 1 GiB in the same run."
    ]
    if torch.cuda.is_available():
        measured = measure(config, torch.device("cuda"))
        record.show(f"measured on {torch.cuda.get_device_name()}", measured)
        rows += measured
    else:
        notes.append(NOT_TIMES)
        print(NOT_TIMES)
    return record.record("kernels", rows, out=config.out, notes=notes)


# ------------------------------------------------------------------------------------------------- without a GPU


def aot_rows() -> list[dict]:
    """The report of ``unstill.kernels.aot``, from a process of its own: it must not run under Triton's interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "unstill.kernels.aot"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def summary(rows: list[dict]) -> list[dict]:
    """One row per kernel; the result file has every configuration."""
    found = []
    for kernel in dict.fromkeys(row["kernel"] for row in rows):
        own = [row for row in rows if row["kernel"] == kernel]
        registers = [row["registers"] for row in own]
        spilled = max(row["spill_store_bytes"] + row["spill_load_bytes"] for row in own)
        shared = max(row["shared_bytes"] for row in own)
        described = dict(kernel=kernel, configurations=len(own), registers=f"{min(registers)}..{max(registers)}")
        found.append(described | dict(spilled_bytes=spilled, shared_bytes=shared))
    return found


def write_aot(rows: list[dict], out: Path | None) -> Path:
    path = Path(out or os.environ.get("OUT") or record.RESULTS) / AOT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "name": "kernels_sm90",
        "command": "unstill bench kernels",
        "commit": record.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": "sm_90, compiled ahead of time, not run",
        "versions": record.versions(),
        "rows": rows,
        "notes": ["registers per thread and spilled bytes from ptxas; shared memory and the widest store from the PTX"],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def clip_bytes(config: KernelsBench, provider: str, static: str) -> float:
    """Bytes read and written in device memory per call, for bfloat16 clips."""
    elements = config.batch * config.frames * config.size**2 * 3
    static_out = {"none": 0, "frame": 2 / config.frames, "full": 2}[static]
    per_element = {
        # crops of which half are flipped, stacked: 3; float: 5; / 255, - mean, / std: 8 each; permuted: 8; bfloat16: 6
        "eager fp32": 3 + 5 + 3 * 8 + 8 + 6,
        # the same, converted to bfloat16 first and then in place: four roundings instead of one
        "eager bf16": 3 + 3 + 3 * 4 + 4,
        "compiled": 3,
        "triton": 3,
    }[provider]
    return elements * (per_element + static_out)


def predicted(config: KernelsBench) -> list[dict]:
    """What each provider must move, as ``unit`` bytes."""
    shape = f"{config.batch}x{config.frames}x{config.size}x{config.size}"
    rows = []
    for static in ("frame", "full"):
        for provider in ("eager fp32", "eager bf16", "compiled", "triton"):
            moved = clip_bytes(config, provider, static)
            times = clip_bytes(config, provider, static) / clip_bytes(config, "triton", static)
            described = dict(kernel="clip_prep", provider=provider, shape=shape, static=static)
            rows.append(dict(kind="predicted", **described, megabytes=moved / 1e6, times_triton=times))
    for classes in config.classes:
        logits = 2 * config.batch * classes * 2  # bfloat16
        described = dict(kernel="static_losses", provider="triton", shape=f"{2 * config.batch}x{classes}")
        rows.append(dict(kind="predicted", **described, megabytes=3 * logits / 1e6))  # read, read, gradient written
    return rows


# ------------------------------------------------------------------------------------------------- providers


@dataclasses.dataclass(frozen=True)
class ClipInputs:
    """One batch of frames and its crops, on the device and, for eager slicing, on the host."""

    frames: Tensor
    top: Tensor
    left: Tensor
    flip: Tensor
    t_idx: Tensor
    size: int
    host: list[tuple[int, int, bool]]

    @classmethod
    def draw(cls, config: KernelsBench, device: torch.device) -> "ClipInputs":
        torch.manual_seed(0)
        shape = (config.batch, config.frames, config.height, config.width, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        top = torch.randint(0, config.height - config.size + 1, (config.batch,))
        left = torch.randint(0, config.width - config.size + 1, (config.batch,))
        flip = torch.arange(config.batch) % 2 == 1
        t_idx = torch.randint(0, config.frames, (config.batch,)).to(device)
        host = list(zip(top.tolist(), left.tolist(), flip.tolist(), strict=True))
        return cls(frames, top.to(device), left.to(device), flip.to(device), t_idx, config.size, host)

    def options(self, static: str, layout: str) -> dict:
        """Keyword arguments of ``clip_prep``."""
        index = dict(top=self.top, left=self.left, flip=self.flip, t_idx=self.t_idx)
        size = (self.size, self.size)
        return dict(mean=MEAN, std=STD, size=size, **index, dtype=torch.bfloat16, static=static, layout=layout)


def with_static(motion: Tensor, t_idx: Tensor, static: str) -> tuple[Tensor, Tensor]:
    frame = motion[torch.arange(len(motion), device=motion.device), :, t_idx].unsqueeze(2)
    return motion, frame if static == "frame" else frame.expand_as(motion).contiguous()


def eager_crops(inputs: ClipInputs) -> Tensor:
    n = inputs.size
    crops = []
    for clip, (y, x, mirrored) in zip(inputs.frames, inputs.host, strict=True):
        crop = clip[:, y : y + n, x : x + n]
        crops.append(crop.flip(2) if mirrored else crop)
    return torch.stack(crops)


def eager_fp32(inputs: ClipInputs, static: str) -> tuple[Tensor, Tensor]:
    mean, std = (inputs.frames.new_tensor(v, dtype=torch.float32) for v in (MEAN, STD))
    clips = (eager_crops(inputs).float() / 255 - mean) / std
    return with_static(clips.permute(0, 4, 1, 2, 3).contiguous().to(torch.bfloat16), inputs.t_idx, static)


def eager_bf16(inputs: ClipInputs, static: str) -> tuple[Tensor, Tensor]:
    mean, std = (inputs.frames.new_tensor(v, dtype=torch.bfloat16) for v in (MEAN, STD))
    clips = eager_crops(inputs).to(torch.bfloat16).div_(255).sub_(mean).div_(std)
    return with_static(clips.permute(0, 4, 1, 2, 3).contiguous(), inputs.t_idx, static)


def gathered(frames, top, left, flip, t_idx, size: int, static: str, layout: str) -> tuple[Tensor, Tensor]:
    """The form that torch.compile can fuse: crop and flip as gather indices."""
    side = torch.arange(size, device=frames.device)
    rows = top[:, None] + side
    columns = left[:, None] + torch.where(flip[:, None], size - 1 - side, side)
    batch = torch.arange(len(frames), device=frames.device)
    time = torch.arange(frames.shape[1], device=frames.device)
    crop = frames[
        batch[:, None, None, None], time[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
    mean, std = (torch.tensor(v, device=frames.device) for v in (MEAN, STD))
    clips = ((crop.float() / 255 - mean) / std).to(torch.bfloat16).permute(0, 4, 1, 2, 3)
    order = torch.channels_last_3d if layout == "channels_last_3d" else torch.contiguous_format
    return with_static(clips.contiguous(memory_format=order), t_idx, static)


def plain_losses(logits: Tensor, target: Tensor, ce_weight: Tensor, negent_weight: Tensor) -> Tensor:
    """The same loss by torch's own functions."""
    z = logits.float()
    ce = F.cross_entropy(z, torch.cat((target, target)), reduction="none")
    log_p = F.log_softmax(z, 1)
    return (ce_weight * ce + negent_weight * (log_p.exp() * log_p).sum(1)).sum()


def our_losses(logits: Tensor, target: Tensor, ce_weight: Tensor, negent_weight: Tensor) -> Tensor:
    ce, negent, _ = static_losses(logits, target, len(target))
    return weighted_loss(ce, negent, ce_weight, negent_weight)


def loss_inputs(rows: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """logits, target, and ALBAR's weights of each row."""
    torch.manual_seed(0)
    half = rows // 2
    logits = torch.randn(rows, classes, device=device).to(torch.bfloat16).requires_grad_()
    target = torch.randint(0, classes, (half,), device=device)
    weights = torch.tensor([[1.0] * half + [-0.3] * half, [0.0] * half + [4.25] * half], device=device) / half
    return logits, target, weights[0].contiguous(), weights[1].contiguous()


# ------------------------------------------------------------------------------------------------- on a GPU


def milliseconds(function: Callable[[], object], config: KernelsBench, graph: bool = False) -> dict[str, float]:
    """p20, p50 and p80 of one call; ``graph``: of calls in one CUDA graph, without launch costs and L2 flush."""
    from triton import testing

    bench = testing.do_bench_cudagraph if graph else testing.do_bench
    middle, low, high = bench(function, rep=config.milliseconds, quantiles=[0.5, 0.2, 0.8])
    return dict(p20=low, p50=middle, p80=high, unit="ms")


def measure(config: KernelsBench, device: torch.device) -> list[dict]:
    """All measurements, ratios against the same run's copy and Triton rows."""
    copy = measure_copy(config, device)
    copy_rate = copy["gb_s"]
    rows = [copy]
    rows += measure_clips(config, device, copy_rate)
    rows += measure_losses(config, device)
    if config.tune:
        rows += measure_tiles(config, device, copy_rate)
    return rows


def measure_copy(config: KernelsBench, device: torch.device) -> dict:
    """The speed limit: a device copy, read plus write."""
    source = torch.empty(2**30 if device.type == "cuda" else 2**10, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timed = milliseconds(lambda: target.copy_(source), config)
    rate = 2 * source.nbytes / timed["p50"] / 1e6
    return dict(kind="measured", kernel="copy", provider="torch", shape=f"{source.nbytes} B", **timed, gb_s=rate)


def measure_clips(config: KernelsBench, device: torch.device, copy_rate: float) -> list[dict]:
    """clip_prep by every provider, and step_boundary, whose ratio to clip_prep is what the fused losses cost."""
    inputs = ClipInputs.draw(config, device)
    index = (inputs.frames, inputs.top, inputs.left, inputs.flip, inputs.t_idx, inputs.size)
    shape = f"{config.batch}x{config.frames}x{config.size}x{config.size}"
    compiled = torch.compile(gathered, fullgraph=True, dynamic=False)
    losses = loss_inputs(2 * config.batch, config.classes[0], device)
    logits = losses[0].detach()
    rows = []
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
            ours = None
            for provider, function in providers.items():
                timed = milliseconds(function, config)
                ours = ours or timed["p50"]
                # useful bytes, the same for all: what the result needs, not what the provider happens to move
                rate = clip_bytes(config, "triton", static) / timed["p50"] / 1e6
                ratios = dict(gb_s=rate, of_copy=rate / copy_rate, times_triton=timed["p50"] / ours)
                rows.append(
                    dict(kind="measured", kernel="clip_prep", provider=provider, **described, **timed, **ratios)
                )

            def fused(options: dict = options) -> object:
                return step_boundary(logits, losses[1], config.batch, *losses[2:], inputs.frames, **options)

            timed = milliseconds(fused, config)
            ratio = dict(times_clip_prep=timed["p50"] / ours)
            rows.append(dict(kind="measured", kernel="step_boundary", provider="triton", **described, **timed, **ratio))
    return rows


def measure_losses(config: KernelsBench, device: torch.device) -> list[dict]:
    """Losses and gradient with respect to the logits, as calls and captured in a CUDA graph."""
    compiled = torch.compile(plain_losses, fullgraph=True, dynamic=False)
    rows = []
    for count, classes in [(2 * config.batch, c) for c in config.classes] + [(16 * config.batch, config.classes[-1])]:
        inputs = loss_inputs(count, classes, device)
        for graph in (False, True):
            ours = None
            for provider, function in (("triton", our_losses), ("compiled", compiled), ("eager", plain_losses)):

                def both(function: Callable = function, inputs: tuple = inputs) -> object:
                    return torch.autograd.grad(function(*inputs), inputs[0])

                timed = milliseconds(both, config, graph)
                ours = ours or timed["p50"]
                described = dict(kernel="static_losses", provider=provider, shape=f"{count}x{classes}", cudagraph=graph)
                rate = 3 * inputs[0].nbytes / timed["p50"] / 1e6
                ratios = dict(gb_s=rate, times_triton=timed["p50"] / ours)
                rows.append(dict(kind="measured", **described, **timed, **ratios))
    return rows


def measure_tiles(config: KernelsBench, device: torch.device, copy_rate: float) -> list[dict]:
    """Other tiles for clip_prep, for revising the committed table by hand."""
    from ...kernels.clip_prep import clip_prep_triton

    inputs = ClipInputs.draw(config, device)
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
            described = dict(kernel="clip_prep", provider="triton", static="full", channels_last=channels_last)
            rows.append(
                dict(kind="tuned", **described, tile=str(tuple(tile)), **timed, gb_s=rate, of_copy=rate / copy_rate)
            )
    return sorted(rows, key=lambda row: (row["channels_last"], row["p50"]))

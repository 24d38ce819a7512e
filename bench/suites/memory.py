"""`unstill bench memory`: what a training step needs, and how many clips fit on a card; no GPU is asked.

The plan of `unstill train` (trainer/memory_plan.py) for networks, methods and precisions, counted as on a GPU. Then the
same plan, counted as on a CPU, beside what torch's CPU allocator hands out in real steps of smaller clips. Last, what
the gradient penalty adds to plain cross entropy on swin3d_t at 32x224x224: counted, and in real steps of one clip.
"""

import copy
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d, SwinTransformer3d

from ...pipeline.loading.clips import Clips
from ...pipeline.loading.sampler import ClipConfig
from ...trainer.assembly import assemble
from ...trainer.checkpoints.config import CheckpointConfig
from ...trainer.config import TrainConfig
from ...trainer.distributed import Ranks
from ...trainer.inputs.prepare import Prepare
from ...trainer.memory_plan import RECOMPUTE, MemoryPlan, fake_clips, plan_memory
from ...trainer.methods import Albar, Baseline
from ...trainer.models.closed_network import ClosedLayers, close_network
from ...trainer.models.config import ModelConfig
from ...trainer.models.position_bias import look_up_position_biases
from ...trainer.models.registry import MODELS
from ...trainer.monitoring.flops import step_flops
from ...trainer.step_config import Precision, StepConfig
from ..harness.allocator import cpu_peak
from ..harness.failures import one_line
from ..harness.record import ResultFile, show, shown
from ..harness.row import Role, Row
from ..harness.section import Chart, Section
from .step import network

GIB = 1 << 30
CLASSES = 51
SHAPES = {"swin3d_t": (32, 224), "r3d_18": (16, 112), "mvit_v2_s": (16, 224), "motion_cnn": (8, 64)}
METHODS = {"cross entropy": Baseline(), "albar": Albar()}
# card -> GiB that torch can use: what it reports of an RTX 4090, A100, H100 and H200, less 1 GiB for the CUDA context
# and the workspaces of cuDNN and cuBLAS
CARDS = {"24 GB": 22.6, "40 GB": 38.4, "80 GB": 78.1, "141 GB": 138.8}
BATCHES = (6, 8, 16, 32, 64)
MOST_ERROR = 0.15
# over cross entropy, at most: memory of one clip in a real step, memory of 6 clips with 3 static parts, operations
MOST: dict[ClosedLayers, tuple[float | None, float | None, float | None]] = {
    "attention": (1.4, 0.65, 3.5),
    "gelu": (1.05, 0.5, 3.6),
    "mlp": (0.8, None, None),
}
LEAST_CLIPS = 72  # of swin3d_t on an H100 of 80 GB, ALBAR in bf16
STATIC_PARTS = (2, 3)  # that the prediction tries; from 3 on the motion clips' pass is the peak

SECTIONS = {
    "memory-plan": Section(
        title="Memory of a step, known before the run",
        text="Counted from a trace of the step on tensors without data, and compared with real steps.",
        order=65,
        charts={
            "per_clip": Chart(
                title="Memory of one more clip",
                reading="Eager bf16 as on a GPU: peak of a step's tensors, the loader's queue included. Workspaces of "
                "libraries and gaps between blocks are not in it.",
            ),
            "penalty": Chart(
                title="Memory of the exact gradient penalty",
                reading="swin3d_t, 32x224x224, float32, over plain cross entropy in torchvision's network; by the "
                "layers that are closed and the parts of the static clips' pass.",
            ),
        },
    )
}


@dataclass(frozen=True, kw_only=True)
class MemoryBench:
    """Plan the memory of training steps."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    models: tuple[str, ...] = tuple(SHAPES)
    """Networks of the table."""
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    """Precisions of the table."""
    measure: bool = True
    """Also compare plans with the allocator in real steps on this machine's CPU."""
    compiled: bool = True
    """Compare compiled steps, too; each takes a minute or more to compile."""
    full: bool = True
    """Also a real step of swin3d_t at 32x224x224 for every level of closed layers: four CPU-minutes and 4 GiB."""


class Case(NamedTuple):
    """A real step that a plan is compared with."""

    model: str
    frames: int
    size: int
    batch: int
    method: str
    step: StepConfig


def run(config: MemoryBench) -> Path:
    """Plan, compare, print the tables, write the result file and return its path."""
    results = ResultFile("memory-plan", out=config.out, notes=_NOTES, file_name="memory-plan.json")
    for row in real_penalty() if config.full else ():
        results.add(row)
    results.add(*block_rows())
    results.add(*counted_penalty())
    results.add(*penalty_flops())
    results.add(predicted_clips())
    for model in config.models:
        for method in METHODS:
            for precision in config.precisions:
                results.add(*plan_rows(model, method, precision))
    for case in cases(config.compiled) if config.measure else ():
        results.add(compared(case))
    planned = [row for row in results.rows if "mode" in row.facts and not row.target]
    compared_rows = [row for row in results.rows if row.target]
    penalty = [row for row in results.rows if "mode" not in row.facts and not row.target]
    show("memory of a step, as on a GPU", [shown(row, _PLANNED) for row in planned])
    show("plan and allocator, CPU", [shown(row, _COMPARED) for row in compared_rows])
    show("the gradient penalty over cross entropy, swin3d_t", [shown(row) for row in penalty], notes=_NOTES)
    return results.finish()


_PLANNED = ("peak_gib_b8", *(f"clips_on_{name.replace(' ', '_').lower()}" for name in CARDS))
_COMPARED = ("planned_mib", "measured_mib", "ratio", "error")
_NOTES = (
    "Peak of the tensors that live at once in a step (weights, gradients, AdamW's moments, activations, the prepared "
    "batch, the loader's queue, a checkpoint's copy of the state), as on a GPU: CUDA's autocast computes softmax and "
    "norms in float32. value: bytes that one more clip costs. saved: when the backward starts.",
    "recompute: not traced but the eager bytes per clip times a factor, see trainer/memory_plan.py; without it a "
    "compiled step is taken to need what the eager one does.",
    "clips_on: the most clips of a process whose peak fits what torch reports of such a card less 1 GiB for the CUDA "
    f"context and libraries: {', '.join(f'{name}: {size} GiB' for name, size in CARDS.items())}.",
    "albar: with --step.closed-layers auto, attention where there is one.",
    "penalty rows: float32, over plain cross entropy in torchvision's network. counted: the plan's trace, above what "
    "is there between two steps, without temporaries inside an op (at most about 8 MiB). real: the CPU allocator's "
    "peak in one step above what was there before it, and CPU time of that step under the profiler, one thread.",
    "clips predicted for a card: the plan as on a GPU, the loader's queue, a checkpoint's copy and the attention's row "
    "statistics included; the best of the closed layers and static parts that are named. Not run: there was no GPU.",
    "compared: the plan as for a CPU beside the allocator in a real step, both above what was there before the step; "
    "ratio: plan over allocator.",
)


def plan_rows(model: str, method: str, precision: Precision) -> list[Row]:
    """Rows of an eager step and, with a penalty, of one with ``recompute``."""
    frames, size = SHAPES.get(model, (16, 224))
    run = run_config(model, frames, size, method, StepConfig(precision=precision, compile="off"), "cuda")
    plan = plan_memory(run, built(model, "auto", method), classes=CLASSES)
    plans = {"eager": plan}
    if run.method.twice_differentiable:
        plans["compiled, recompute"] = plan.scaled(RECOMPUTE)
    rows = []
    for name, each in plans.items():
        facts = {"model": model, "method": method, "clip": f"{frames}x{size}x{size}", "precision": precision}
        facts |= {"mode": name, "fixed_gib": each.fixed / GIB}
        if name == "eager":
            facts["saved_gib_per_clip"] = (each.saved[1] - each.resident[1]) / GIB
        facts |= {f"peak_gib_b{batch}": each.peak(batch) / GIB for batch in BATCHES}
        facts |= {
            f"clips_on_{card.replace(' ', '_').lower()}": each.largest_batch(memory * GIB)
            for card, memory in CARDS.items()
        }
        drawn: dict[str, Any] = (
            {"figure": "per_clip", "label": method, "group": model} if (name, precision) == ("eager", "bf16") else {}
        )
        title = f"{model} {frames}x{size}x{size}, {method}, {precision}, {name}"
        role: Role = "peer" if method == "cross entropy" else "ours"
        rows.append(
            Row(
                title=title, value=each.per_clip / GIB, unit="GiB/clip", better="lower", role=role, facts=facts, **drawn
            )
        )
    return rows


def cases(compiled: bool) -> list[Case]:
    """Small real steps: a transformer and two convolutional networks."""
    shapes = (("motion_cnn", 8, 64, 8), ("reduced_swin", 8, 56, 2), ("r3d_18", 8, 56, 2))
    eager = StepConfig(precision="fp32", compile="off")
    found = [Case(*shape, method, eager) for shape in shapes for method in METHODS]
    found += [Case(*shapes[1], method, replace(eager, precision="bf16")) for method in METHODS]
    found += [Case(*shapes[0], "albar", replace(eager, accumulate=2, ema=0.9))]
    if compiled:
        found += [Case(*shape, method, StepConfig(precision="fp32")) for shape in shapes[:2] for method in METHODS]
        found += [Case(*shape, "albar", StepConfig(precision="fp32", recompute=True)) for shape in shapes[:2]]
    return found


def compared(case: Case) -> Row:
    """The plan of a step beside the allocator in that step, as a row."""
    torch.set_num_threads(1)
    run = run_config(case.model, case.frames, case.size, case.method, case.step, "cpu")
    mode = {"off": "eager"}.get(case.step.compile, "compiled") + (", recompute" if case.step.recompute else "")
    facts = {"model": case.model, "method": case.method, "clip": f"{case.frames}x{case.size}x{case.size}"}
    facts |= {"batch": case.batch, "precision": case.step.precision, "accumulate": case.step.accumulate, "mode": mode}
    title = f"plan beside the allocator: {case.model}, {case.method}, {case.step.precision}, {mode}"
    title += f", {case.step.accumulate} parts" if case.step.accumulate > 1 else ""
    described = {"title": title, "at_most": MOST_ERROR, "target": "memory plan, share that it is off"}
    try:
        model = built(case.model, "auto", case.method)
        planned = plan_memory(run, model, classes=CLASSES).step_peak(case.batch)
        measured = measured_peak(run, model, case.batch)
    except Exception as error:  # a benchmark goes on
        return Row(**described, facts=facts | {"error": one_line(error)})
    facts |= {"planned_mib": planned / 2**20, "measured_mib": measured / 2**20, "ratio": planned / measured}
    return Row(**described, value=abs(planned / measured - 1), facts=facts)


def measured_peak(run: TrainConfig, model: nn.Module, batch: int, *, warm_up: int = 2) -> int:
    """Bytes that a step takes from the CPU's allocator at most, above what was there, after ``warm_up`` steps."""
    _, step = assemble(run, model, None, {}, Ranks(0, 1, torch.device("cpu")), 1 << 20, CLASSES)
    clips = real_clips(run, batch)
    for _ in range(warm_up):  # the first compiles and makes the optimiser's state
        step(clips)
    return cpu_peak(lambda: step(clips))


def counted_penalty() -> list[Row]:
    """Planned memory of ALBAR over that of cross entropy, float32: one clip, and six with the static pass in parts."""
    cross_entropy = swin_plan("cross entropy", "off")
    rows = []
    for layers in ("off", *MOST):
        for clips, parts in ((1, 1), (6, 3)):
            peak, floor = swin_plan("albar", layers, parts).step_peak(clips), cross_entropy.step_peak(clips)
            most = MOST.get(layers, (None,) * 3)[1] if parts > 1 else None
            rows.append(penalty_row("counted memory", layers, clips, parts, peak / floor, most, mib=peak / 2**20))
    return rows


def block_rows() -> list[Row]:
    """Bytes that one block of swin3d_t's first stage keeps until the backward starts, float32, one clip.

    The difference between networks of four and of two such blocks, halved: one of the two blocks shifts its windows.
    In the other stages a block keeps a half, a quarter and an eighth of it: tokens times width halve with each.
    """
    frames, size = SHAPES["swin3d_t"]
    unit = 4 * 96 * (frames // 2) * (size // 4) ** 2  # tokens x width, float32
    rows = []
    for name, method, layers in (("cross entropy", "cross entropy", "off"), *((n, "albar", n) for n in ("off", *MOST))):
        saved = []
        for depth in (2, 4):
            torch.manual_seed(0)
            model = SwinTransformer3d([2, 4, 4], 96, [depth], [3], [8, 7, 7], stochastic_depth_prob=0.0).train()
            look_up_position_biases(model)
            close_network(model, "auto", layers, penalty=method == "albar")
            step = StepConfig(precision="fp32", compile="off")
            run = run_config("one stage", frames, size, method, step, "cpu")
            saved.append(plan_memory(run, model, classes=400).saved[1])
        kept = (saved[1] - saved[0]) / 2
        about = name if method == "cross entropy" else f"ALBAR's static pass, closed layers {layers}"
        rows.append(
            Row(
                title=f"kept by a block of swin3d_t's first stage: {about}",
                value=kept / 1e6,
                unit="MB",
                better="lower",
                facts={"closed_layers": layers, "method": method, "units_of_tokens_times_width": kept / unit},
            )
        )
    return rows


def penalty_flops() -> list[Row]:
    """Operations of a step of ALBAR over those of cross entropy; parts do not change them."""
    floor = step_flops(network("swin3d_t"), Baseline(), *SHAPES["swin3d_t"])
    rows = []
    for layers in ("off", *MOST):
        found = step_flops(built("swin3d_t", layers), Albar(), *SHAPES["swin3d_t"])
        most = MOST.get(layers, (None,) * 3)[2]
        rows.append(penalty_row("operations", layers, 1, 1, found / floor, most, tflop=found / 1e12))
    return rows


def real_penalty() -> Iterator[Row]:
    """Peak of a real step of one clip, cross entropy first, then every level of closed layers over it."""
    torch.set_num_threads(1)
    floor = seconds_floor = 0.0
    for layers in ("none", *MOST):  # none: cross entropy
        method = "cross entropy" if layers == "none" else "albar"
        step = StepConfig(precision="fp32", compile="off")
        run = run_config("swin3d_t", *SHAPES["swin3d_t"], method, step, "cpu")
        begin = time.process_time()
        try:
            peak = measured_peak(run, built("swin3d_t", "off" if layers == "none" else layers), 1, warm_up=0)
        except Exception as error:  # a benchmark goes on
            most = None if layers == "none" else MOST[layers][0]
            yield penalty_row("real memory", layers, 1, 1, None, most, error=one_line(error))
            continue
        seconds = time.process_time() - begin
        gc.collect()
        if layers == "none":
            floor, seconds_floor = peak, seconds
            facts = {"clips": 1, "cpu_seconds": seconds}
            yield Row(
                title="swin3d_t, cross entropy, one clip, real memory", value=peak / 2**20, unit="MiB", facts=facts
            )
            continue
        times = {"cpu_seconds": seconds, "cpu_time_over_cross_entropy": seconds / seconds_floor}
        yield penalty_row("real memory", layers, 1, 1, peak / floor, MOST[layers][0], mib=peak / 2**20, **times)


def predicted_clips() -> Row:
    """Most clips of swin3d_t that ALBAR in bf16 fits on a card of 80 GB, by closed layers and static parts."""
    found = {}
    for layers in MOST:
        extra = row_statistics(built("swin3d_t", layers))
        for parts in STATIC_PARTS:
            plan = swin_plan("albar", layers, parts, "bf16", "cuda")
            plan = replace(plan, moments=tuple((a, b + extra) for a, b in plan.moments))
            most = plan.largest_batch(CARDS["80 GB"] * GIB)
            found[layers, parts] = most - most % parts
    (layers, parts), best = max(found.items(), key=lambda item: item[1])
    tried = {f"clips_{name}_{n}_parts": clips for (name, n), clips in found.items()}
    return Row(
        title="swin3d_t, ALBAR, bf16: clips predicted for one H100 of 80 GB",
        value=best,
        unit="clips",
        at_least=LEAST_CLIPS,
        facts={"closed_layers": layers, "static_parts": parts, "row_statistics_mib_per_clip": extra / 2**20, **tried},
    )


def row_statistics(model: nn.Module) -> int:
    """Bytes per clip that attention keeps on CUDA besides what the trace sees, where its form in plain torch runs.

    Two float32 numbers a query and head: the logarithm of the softmax's denominator, and rowsum(dO * O).
    """
    found = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal found
        found += 2 * 4 * module.num_heads * inputs[0][..., 0].numel()  # type: ignore[operator]

    frames, size = SHAPES["swin3d_t"]
    bare = copy.deepcopy(model).to("meta")
    for module in bare.modules():
        if isinstance(module, ShiftedWindowAttention3d):
            module.register_forward_pre_hook(count)
    with torch.no_grad():
        bare(torch.empty(1, 3, frames, size, size, device="meta"))
    return found


def swin_plan(
    method: str,
    layers: ClosedLayers,
    parts: int = 1,
    precision: Precision = "fp32",
    device: Literal["cuda", "cpu"] = "cpu",
) -> MemoryPlan:
    """The plan of an eager step of swin3d_t at its full shape."""
    frames, size = SHAPES["swin3d_t"]
    step = StepConfig(precision=precision, compile="off", static_parts=parts)
    run = run_config("swin3d_t", frames, size, method, step, device)
    return plan_memory(run, built("swin3d_t", layers), classes=CLASSES)


def penalty_row(
    what: str, layers: str, clips: int, parts: int, ratio: float | None, most: float | None, **facts: Any
) -> Row:
    """A number of ALBAR's step over the same of cross entropy."""
    names = {"off": "torchvision's layers", "attention": "closed attention"}
    names |= {"gelu": "closed attention and gelu", "mlp": "closed attention and MLP"}
    number = "one clip" if clips == 1 else f"{clips} clips, static pass in {parts} parts"
    drawn: dict[str, Any] = {"figure": "penalty", "group": number} if what == "counted memory" else {}
    return Row(
        title=f"swin3d_t, ALBAR, {names.get(layers, layers)}, {number}: {what} over cross entropy",
        value=ratio,
        unit="times",
        better="lower",
        at_most=most,
        label=names.get(layers, layers),
        facts={"closed_layers": layers, "clips": clips, "static_parts": parts, **facts},
        **drawn,
    )


def real_clips(run: TrainConfig, batch: int) -> Clips:
    """A prepared batch of grey clips."""
    clips = fake_clips(batch, run.clip.frames, run.clip.size)
    for tensor in (clips.label, clips.sample, clips.position, clips.start_frame, clips.static_index, clips.flip):
        tensor.zero_()
    clips.frames.fill_(128)
    clips.prepared = Prepare(run)(clips)
    return clips


def run_config(
    model: str, frames: int, size: int, method: str, step: StepConfig, device: Literal["cuda", "cpu"]
) -> TrainConfig:
    """A run of AdamW; nothing of it is read or written."""
    return TrainConfig(
        data=Path("none"),
        out=Path("none"),
        model=ModelConfig(name=model if model in MODELS else "none:none"),
        method=METHODS[method],
        clip=ClipConfig(frames=frames, size=size),
        step=step,
        device=device,
        checkpoint=CheckpointConfig(),
    )


def built(name: str, layers: ClosedLayers | Literal["auto"], method: str = "albar") -> nn.Module:
    """A network as it is trained; ``layers`` as ``--step.closed-layers``."""
    model = network(name).train()
    look_up_position_biases(model)
    close_network(model, "auto", layers, penalty=METHODS[method].twice_differentiable)
    return model

"""`unstill bench memory`: what a training step needs, and how many clips fit on a card; no GPU is asked.

The plan of `unstill train` (trainer/memory_plan.py) for networks, methods and precisions, counted as on a GPU. Then the
same plan, counted as on a CPU, against what torch's CPU allocator hands out in real steps of smaller clips.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from ...pipeline.loading.clips import Clips
from ...pipeline.loading.sampler import ClipConfig
from ...trainer.assembly import assemble
from ...trainer.checkpoints.config import CheckpointConfig
from ...trainer.config import TrainConfig
from ...trainer.distributed import Ranks
from ...trainer.inputs.prepare import Prepare
from ...trainer.memory_plan import fake_clips, plan_memory
from ...trainer.methods import Albar, Baseline
from ...trainer.models.closed_network import ClosedLayers, close_network
from ...trainer.models.config import ModelConfig
from ...trainer.models.position_bias import look_up_position_biases
from ...trainer.models.registry import MODELS
from ...trainer.step_config import Precision, StepConfig
from ..harness.allocator import cpu_peak
from ..harness.failures import one_line
from ..harness.record import ResultFile, show, shown
from ..harness.row import Role, Row
from ..harness.section import Chart, Section
from ..harness.training_step import network

GIB = 1 << 30
CLASSES = 51
SHAPES = {"swin3d_t": (32, 224), "r3d_18": (16, 112), "mvit_v2_s": (16, 224), "motion_cnn": (8, 64)}
METHODS = {"cross entropy": Baseline(), "albar": Albar()}
# card -> GiB that torch can use: what it reports of an RTX 4090, A100, H100 and H200, less 1 GiB for the CUDA context
# and the workspaces of cuDNN and cuBLAS
CARDS = {"24 GB": 22.6, "40 GB": 38.4, "80 GB": 78.1, "141 GB": 138.8}
BATCHES = (6, 8, 16, 32, 64)
MOST_ERROR = 0.15

SECTIONS = {
    "memory-plan": Section(
        title="Memory of a step, known before the run",
        text="Counted from a trace of the step on tensors without data, and compared with real steps.",
        order=65,
        picture="training",
        charts={
            "per_clip": Chart(
                title="Memory of one more clip",
                reading="Eager bf16 as on a GPU: peak of a step's tensors, the loader's queue included. Workspaces of "
                "libraries and gaps between blocks are not in it.",
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
    for model in config.models:
        for method in METHODS:
            for precision in config.precisions:
                results.add(plan_row(model, method, precision))
    for case in cases(config.compiled) if config.measure else ():
        results.add(compared(case))
    show("memory of a step, as on a GPU", [shown(row, _PLANNED) for row in results.rows if not row.target])
    show("plan and allocator, CPU", [shown(row, _COMPARED) for row in results.rows if row.target], notes=_NOTES)
    return results.finish()


_PLANNED = ("peak_gib_b8", *(f"clips_on_{name.replace(' ', '_').lower()}" for name in CARDS))
_COMPARED = ("planned_mib", "measured_mib", "ratio", "error")
_NOTES = (
    "Peak of the tensors that live at once in a step (weights, gradients, AdamW's moments, activations, the prepared "
    "batch, the loader's queue, a checkpoint's copy of the state), as on a GPU: CUDA's autocast computes softmax and "
    "norms in float32. value: bytes that one more clip costs. saved: when the backward starts.",
    "A compiled step is taken to need what the eager one does. What this project's operators allocate inside on a GPU "
    "(matrices of a chunk, statistics of rows, partial sums) is in it; workspaces of cuDNN and cuBLAS are not.",
    "clips_on: the most clips of a process whose peak fits what torch reports of such a card less 1 GiB for the CUDA "
    f"context and libraries: {', '.join(f'{name}: {size} GiB' for name, size in CARDS.items())}.",
    "albar: with --step.closed-layers auto, attention where there is one.",
    "compared: the plan as for a CPU against the allocator in a real step, both above what was there before the step; "
    "ratio: plan over allocator.",
)


def plan_row(model: str, method: str, precision: Precision) -> Row:
    """What an eager step needs on a GPU."""
    frames, size = SHAPES.get(model, (16, 224))
    run = run_config(model, frames, size, method, StepConfig(precision=precision, compile="off"), "cuda")
    plan = plan_memory(run, built(model, "auto", method), classes=CLASSES)
    facts = {"model": model, "method": method, "clip": f"{frames}x{size}x{size}", "precision": precision}
    facts |= {"mode": "eager", "fixed_gib": plan.fixed / GIB}
    facts["saved_gib_per_clip"] = (plan.saved[1] - plan.resident[1]) / GIB
    facts |= {f"peak_gib_b{batch}": plan.peak(batch) / GIB for batch in BATCHES}
    facts |= {
        f"clips_on_{card.replace(' ', '_').lower()}": plan.largest_batch(memory * GIB) for card, memory in CARDS.items()
    }
    drawn: dict[str, Any] = {"figure": "per_clip", "label": method, "group": model} if precision == "bf16" else {}
    role: Role = "peer" if method == "cross entropy" else "ours"
    title = f"{model} {frames}x{size}x{size}, {method}, {precision}, eager"
    return Row(title=title, value=plan.per_clip / GIB, unit="GiB/clip", better="lower", role=role, facts=facts, **drawn)


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
    """The plan of a step against the allocator in that step, as a row."""
    torch.set_num_threads(1)
    run = run_config(case.model, case.frames, case.size, case.method, case.step, "cpu")
    mode = {"off": "eager"}.get(case.step.compile, "compiled") + (", recompute" if case.step.recompute else "")
    facts = {"model": case.model, "method": case.method, "clip": f"{case.frames}x{case.size}x{case.size}"}
    facts |= {"batch": case.batch, "precision": case.step.precision, "accumulate": case.step.accumulate, "mode": mode}
    title = f"plan against the allocator: {case.model}, {case.method}, {case.step.precision}, {mode}"
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

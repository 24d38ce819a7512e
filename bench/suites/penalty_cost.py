"""`unstill bench penalty_cost`: what the exact gradient penalty adds to plain cross entropy on swin3d_t, 32x224x224.

Counted without computing anything: bytes that a Swin block keeps, the memory of a step by closed layers and static
parts, operations, and the clips that should fit on an H100. Then real steps of one clip on a CPU: the allocator's peak.
"""

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torchvision.models.video.swin_transformer import SwinTransformer3d

from ...trainer.memory_plan import MemoryPlan, plan_memory
from ...trainer.methods import Albar, Baseline
from ...trainer.models.closed_network import ClosedLayers, close_network
from ...trainer.models.position_bias import look_up_position_biases
from ...trainer.monitoring.flops import step_flops
from ...trainer.step_config import Precision, StepConfig
from ..harness.failures import one_line
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Chart, Section
from ..harness.training_step import network
from .memory import CARDS, CLASSES, GIB, SHAPES, built, measured_peak, run_config

# over cross entropy, at most: memory of one clip in a real step, memory of 6 clips with 3 static parts, operations
MOST: dict[ClosedLayers, tuple[float | None, float | None, float | None]] = {
    "attention": (1.4, 0.65, 3.5),
    "gelu": (1.05, 0.5, 3.6),
    "mlp": (0.8, None, None),
}
LEAST_CLIPS = 72  # of swin3d_t on an H100 of 80 GB, ALBAR in bf16
STATIC_PARTS = (1, 3)  # that the prediction tries; from 3 on the motion clips' pass is the peak

SECTIONS = {
    "penalty-cost": Section(
        title="What the exact gradient penalty costs",
        text="ALBAR's step on swin3d_t against plain cross entropy.",
        order=66,
        picture="training",
        charts={
            "penalty": Chart(
                title="Memory of the exact gradient penalty",
                reading="swin3d_t, 32x224x224, float32, over plain cross entropy in torchvision's network; by the "
                "layers that are closed and the parts of the static clips' pass.",
            ),
        },
    )
}


@dataclass(frozen=True, kw_only=True)
class PenaltyCostBench:
    """Count the cost of the gradient penalty, and measure it in real steps."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    real: bool = True
    """Also a real step for every level of closed layers: about four CPU-minutes and 4 GiB."""


def run(config: PenaltyCostBench) -> Path:
    """Count, measure, print the table, write the result file and return its path."""
    results = ResultFile("penalty-cost", out=config.out, notes=_NOTES, file_name="penalty-cost.json")
    torch.set_num_threads(1)
    for rows in (counted_penalty, penalty_flops, block_rows, predicted_clips):
        results.add(*rows())
    for row in real_penalty() if config.real else ():
        results.add(row)
    results.show("The gradient penalty over cross entropy, swin3d_t", _SHOWN)
    return results.finish()


_SHOWN = "mib tflop cpu_seconds error".split()
_NOTES = (
    "float32, over plain cross entropy in torchvision's network. counted: the trace of trainer/memory_plan.py, above "
    "what is there between two steps, without temporaries inside an op (at most about 8 MiB). real: the CPU "
    "allocator's peak in one step above what was there before it, and CPU time under the profiler, one thread.",
    "clips predicted for a card: the plan as on a GPU, with the loader's queue, a checkpoint's copy and "
    "what operators allocate inside; the best of the closed layers and static parts that are named. There was no GPU.",
)


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
    levels: tuple[ClosedLayers, ...] = ("off", *MOST)
    kinds: list[tuple[str, ClosedLayers]] = [("cross entropy", "off"), *(("albar", level) for level in levels)]
    for method, layers in kinds:
        name = layers if method == "albar" else method
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


def predicted_clips() -> list[Row]:
    """Most clips of swin3d_t that ALBAR in bf16 fits on a card of 80 GB, by closed layers and static parts."""
    found = {}
    for layers in MOST:
        for parts in STATIC_PARTS:
            plan = swin_plan("albar", layers, parts, "bf16", "cuda")
            most = plan.largest_batch(CARDS["80 GB"] * GIB)
            found[layers, parts] = most - most % parts
    (layers, parts), best = max(found.items(), key=lambda item: item[1])
    tried = {f"clips_{name}_{n}_parts": clips for (name, n), clips in found.items()}
    return [
        Row(
            title="swin3d_t, ALBAR, bf16: clips predicted for one H100 of 80 GB",
            value=best,
            unit="clips",
            at_least=LEAST_CLIPS,
            facts={"closed_layers": layers, "static_parts": parts, **tried},
        )
    ]


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

"""The compiled ALBAR step against eager, the official code's arithmetic and plain cross entropy.

Every variant runs in a process of its own, so that its peak memory is its own. On a GPU result rows are written as they
come; a benchmark that is cut off keeps what it has.

On a CPU: a reduced Swin (two stages of two blocks, width 48), ALBAR eager and compiled, against the step that makes
both forwards before one backward through torchvision's attention; and the gradients of all of them in float64.
On a GPU: swin3d_t 32x224 and r3d_18 16x112 in bf16, with MFU and memory at the recipes' batches. A variant that runs
out of memory or time is a row that says so, and the next one starts.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ...pipeline.errors import InputError
from ...trainer.batch import Batch
from ...trainer.loss_module import LossModule, compile_loss
from ...trainer.methods import Albar
from ...trainer.models.closed_network import ClosedLayers, close_network
from ...trainer.models.position_bias import look_up_position_biases
from ...trainer.passes import backward_in_passes, step_passes
from ..harness.failures import one_line
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Row, finite
from ..harness.section import Chart, Section
from ..harness.step_process import measure
from ..harness.training_step import Variant, network, one_pass

# the official arithmetic takes 10.4 GiB a clip of swin3d_t: 6 clips fit into 80 GB, 8 do not
BATCHES = {"swin3d_t": (6, 8), "r3d_18": (32, 64), "reduced_swin": (2,)}

TARGETS = {  # of a row against another: (variant, other, what, at most)
    "cpu time": ("albar compiled", "albar eager", "time", 0.95),
    "cpu time, recompute": ("albar compiled, recompute", "albar eager", "time", 0.95),
    "cpu memory, recompute": ("albar compiled, recompute", "albar eager", "resident_mib", 0.8),
    "cpu time over one backward": ("albar compiled", "albar compiled, one backward", "time", 1.05),
    "cpu memory over one backward": ("albar compiled", "albar compiled, one backward", "peak_mib", 0.45),
    "cpu cost over cross entropy": ("albar compiled", "cross entropy compiled", "time", 3.9),
    "gpu speed-up over the official step": ("albar compiled", "reference", "time", 1 / 3),
    "gpu cost over cross entropy": ("albar compiled", "cross entropy compiled", "time", 3.3),
}
MOST_GRADIENT_DIFFERENCE = 1e-12

SECTIONS = {
    "step": Section(
        title="The training step",
        text="The ALBAR step against eager torch, the official arithmetic and plain cross entropy.",
        order=60,
        picture="training",
        charts={
            "time": Chart(
                title="One training step",
                reading="Forward, backward and AdamW; wall clock on a GPU, CPU time of one thread elsewhere. Cross "
                "entropy, which has no static clips and no penalty, is the floor.",
            ),
            "memory": Chart(
                title="Memory of a training step",
                reading="Peak of what the allocator hands out.",
                column="peak_mib",
                of="time",
                unit="MiB",
                better="lower",
            ),
        },
    )
}


@dataclass(frozen=True, kw_only=True)
class StepBench:
    """What is measured; the defaults suit the device that is found."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    models: tuple[str, ...] = ()
    """Of swin3d_t, r3d_18, reduced_swin; by default the first two on a GPU, the last on a CPU."""
    batches: tuple[int, ...] = ()
    """Clips in a step; the first is for times, all are for the memory table. By default those of the recipes and one
    larger: 6 and 8 for swin3d_t, 32 and 64 for r3d_18, 2 on a CPU."""
    only: tuple[str, ...] = ()
    """GPU: names of the variants to measure, such as "albar compiled"; by default all."""
    steps: int = 10
    """Timed steps of each variant."""
    seconds: float = 1200
    """GPU: a variant is started only if it should end within this time; those left out are named. CPU: no limit."""
    variant_seconds: float = 330
    """GPU: a variant is stopped after this time, and keeps the steps that it has."""
    extras: bool = False
    """GPU: also other layouts, float32, and one joined forward."""


def run(config: StepBench) -> Path:
    """Measure, print the table and the targets, and return the result file."""
    gpu = torch.cuda.is_available()
    chosen, left_out = variants(config, gpu), []
    results = ResultFile("step", out=config.out, notes=_NOTES)
    if gpu:  # one after another: each may need the whole device
        start = time.monotonic()
        for variant in chosen:
            if time.monotonic() - start + variant.estimate(config.steps) > config.seconds:
                left_out.append(f"{variant.model} {variant.name} x{variant.batch}")
                continue
            results.add(*measure([variant], config.steps, "cuda", config.variant_seconds))
            row = results.rows[-1]
            print(f"{row.title}: {row.facts.get('error') or f'{row.value:.4g} ms'}", flush=True)
    else:
        results.add(*measure(chosen, config.steps, "cpu"))
        results.add(*gradient_differences())
    if left_out:
        results.note(f"not measured, for want of time: {', '.join(left_out)}")
    results.add(*beside_targets(results.rows, gpu))
    results.show("one training step", _SHOWN)
    return results.finish()


_SHOWN = "batch clips_per_s peak_mib resident_mib first_step_s graph_breaks mfu error".split()
_NOTES = (
    "A step is forward, backward and AdamW on clips that are prepared already. p20/p50/p80 in ms: wall clock on a GPU, "
    "process CPU time on a CPU (one thread), where other work would distort the wall clock. peak_mib: the "
    "allocator's peak; resident_mib, on a CPU: the step's resident peak above what was resident before it, scratch "
    "memory of libraries included. recompute: --step.recompute.",
    "one backward: motion and static clips both forward, then one backward of the sum, with torchvision's attention: "
    "the step before the motion loss's backward came first and attention had closed derivatives.",
    "reference: the arithmetic of the official ALBAR code: eager float32, two forwards, create_graph, one norm per "
    "image column, the loss read by the host every step; without its data loading.",
    "mfu: counted operations of the step (see trainer/monitoring/flops.py) over time and the device's dense bf16 peak.",
)


def variants(config: StepBench, gpu: bool) -> list[Variant]:
    """What to measure, the most telling first."""
    models = config.models or (("swin3d_t", "r3d_18") if gpu else ("reduced_swin",))
    if not gpu:
        batch = (config.batches or (2,))[0]
        return [
            variant
            for model in models
            for eager in (Variant("albar eager", model, batch, closed_layers="auto"),)
            for variant in (
                eager,
                replace(eager, name="albar compiled", compiled=True),
                replace(eager, name="cross entropy eager", kind="cross_entropy"),
                replace(eager, name="cross entropy compiled", kind="cross_entropy", compiled=True),
                Variant("albar eager, one backward", model, batch, one_backward=True),
                Variant("albar compiled, one backward", model, batch, compiled=True, one_backward=True),
                replace(eager, name="albar compiled, recompute", compiled=True, recompute=True),
            )
        ]
    chosen = [variant for model in models for variant in _on_gpu(config, model)]
    # the most telling ones of every model first, then the rest, and last what may take minutes a step
    first = {model: (config.batches or BATCHES[model])[0] for model in models}
    telling = lambda variant: variant.name in _FIRST and variant.batch == first[variant.model]  # noqa: E731
    chosen.sort(key=lambda variant: (_may_take_minutes(variant), not telling(variant)))
    unknown = sorted({*config.only} - {variant.name for variant in chosen})
    if unknown:
        names = dict.fromkeys(variant.name for variant in chosen)
        raise InputError(f"only: no variant named {unknown[0]!r}; expected some of {', '.join(names)}")
    return [variant for variant in chosen if not config.only or variant.name in config.only]


_FIRST = ("albar compiled", "cross entropy compiled")


def _may_take_minutes(variant: Variant) -> bool:
    # PyTorch's own double backward asks cuDNN for convolutions whose kernel is a feature map: 20 of them in r3d_18
    return variant.kind != "cross_entropy" and not variant.closed_conv and variant.model == "r3d_18"


def _on_gpu(config: StepBench, model: str) -> list[Variant]:
    batch, *others = config.batches or BATCHES[model]
    last = model == "r3d_18"  # whose convolutions like channels last
    ours = Variant("albar compiled", model, batch, "albar", "bf16", True, True, last, closed_layers="auto")
    chosen = [
        ours,
        replace(ours, name="cross entropy compiled", kind="cross_entropy", closed_conv=False, closed_layers="off"),
        replace(ours, name="albar compiled, recompute", recompute=True),
        Variant("reference", model, batch, kind="reference"),
        replace(ours, name="albar eager", compiled=False),
        *(replace(ours, batch=other) for other in others),
        *([replace(ours, name="albar compiled, plain layers", closed_layers="off")] if model == "swin3d_t" else []),
        replace(ours, name="albar compiled, plain convolutions", closed_conv=False),
    ]
    if config.extras:
        chosen += [
            replace(ours, name="albar compiled, other layout", channels_last=not last),
            replace(ours, name="albar compiled fp32", precision="fp32"),
            replace(ours, name="albar compiled, one forward", joint=True),
            replace(ours, name="albar eager fp32", precision="fp32", compiled=False),
        ]
    return chosen


def planned(config: StepBench) -> float:
    """Seconds that a GPU machine should need at most."""
    each = [min(variant.estimate(config.steps), config.variant_seconds) for variant in variants(config, gpu=True)]
    return min(sum(each), config.seconds)


def gradient_differences() -> list[Row]:
    """float64 gradients of the step, by level of closed layers, eager and compiled, against one backward through
    torchvision's own layers: largest difference over the largest entry."""
    torch.set_num_threads(1)
    reference = _gradients("off", one_backward=True)
    scale = max(float(g.abs().max()) for g in reference)
    rows = []
    levels: tuple[tuple[ClosedLayers, bool], ...] = (
        *(("off", False), ("attention", False), ("gelu", False), ("mlp", False)),
        ("attention", True),
    )
    for level, compiled in levels:
        try:
            found = _gradients(level, compiled=compiled)
        except Exception as error:  # a benchmark goes on
            rows.append(gradient_row(level, compiled, None, one_line(error)))
            continue
        difference = max(float((a - b).abs().max()) for a, b in zip(found, reference, strict=True)) / scale
        rows.append(gradient_row(level, compiled, difference))
    return rows


def _gradients(layers: ClosedLayers, *, compiled: bool = False, one_backward: bool = False) -> list[Tensor]:
    model = copy.deepcopy(network("reduced_swin")).double()
    for module in model.modules():
        if isinstance(module, (StochasticDepth, nn.Dropout)):
            module.p = 0.0
    if not one_backward:  # the reference keeps the published network as it is
        look_up_position_biases(model)
        close_network(model, "auto", layers, penalty=True)
    loss_module = LossModule(model, Albar())
    compile_loss(loss_module, "default" if compiled else "off")
    motion = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch(motion, motion[:, :, 2:3], torch.zeros(1, dtype=torch.int64))
    backward_in_passes(loss_module, batch, one_pass(1) if one_backward else step_passes(loss_module.method, 1, True))
    return [p.grad for p in model.parameters() if p.grad is not None]


def gradient_row(layers: str, compiled: bool, difference: float | None, error: str = "") -> Row:
    """Largest difference of the step's gradients from the reference's, relative to the largest entry."""
    title = f"float64 gradients against one backward: closed layers {layers}, {'compiled' if compiled else 'eager'}"
    facts = {"closed_layers": layers, "compiled": compiled} | ({"error": error} if error else {})
    return Row(title=title, value=difference, unit="of the largest", at_most=MOST_GRADIENT_DIFFERENCE, facts=facts)


def beside_targets(rows: Sequence[Row], gpu: bool) -> list[Row]:
    """One row per model and target, with the ratio that was found."""
    found = []
    timed = [row for row in rows if "variant" in row.facts and finite(row.value)]
    for model in dict.fromkeys(row.facts["model"] for row in timed):
        first: dict[str, Row] = {}
        for row in timed:
            if row.facts["model"] == model:
                first.setdefault(row.facts["variant"], row)
        for name, (variant, other, what, most) in TARGETS.items():
            if name.startswith("gpu") == gpu and variant in first and other in first:
                title, found_ratio = f"{model}: {name}", ratio(first[variant], first[other], what)
                found.append(Row(title=title, unit="times", at_most=most, **found_ratio))
        if not gpu and "albar compiled" in first:
            breaks = first["albar compiled"].facts["graph_breaks"]
            found.append(Row(title=f"{model}: graph breaks", value=breaks, unit="breaks", at_most=0))
    return found


def ratio(one: Row, two: Row, what: str) -> dict[str, Any]:
    """One row over another as fields of a ``Row``: of a fact, or the median and spread of "time" turn by turn."""
    if what == "time" and all("turns_ms" in row.facts for row in (one, two)):
        turns = zip(one.facts["turns_ms"], two.facts["turns_ms"], strict=True)
        return spread(quantiles([a / b for a, b in turns]))
    top, bottom = (row.value if what == "time" else row.facts.get(what) for row in (one, two))
    return {"value": top / bottom if finite(top) and finite(bottom) else None}

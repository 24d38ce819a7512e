"""The compiled ALBAR step against eager, the official code's arithmetic and plain cross entropy.

Every variant runs in a process of its own, so that its peak memory is its own. On a GPU result rows are written as they
come; a benchmark that is cut off keeps what it has.

On a CPU: a reduced Swin (two stages of two blocks, width 48), ALBAR eager and compiled, against the step that makes
both forwards before one backward through torchvision's attention; and the gradients of all of them in float64.
On a GPU: swin3d_t 32x224 and r3d_18 16x112 in bf16, with MFU and memory at the recipes' batches. A variant that runs
out of memory or time is a row that says so, and the next one starts.
"""

import copy
import ctypes
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import SwinTransformer3d
from torchvision.ops import StochasticDepth

from ...pipeline.errors import InputError
from ...trainer.batch import Batch
from ...trainer.loss_module import LossModule, compile_loss
from ...trainer.methods import Albar, Baseline
from ...trainer.models.closed_network import ClosedLayers, close_network
from ...trainer.models.position_bias import look_up_position_biases
from ...trainer.models.registry import build_model
from ...trainer.monitoring.flops import peak_flops, step_flops
from ...trainer.passes import Pass, backward_in_passes, step_passes
from ..harness.allocator import cpu_peak
from ..harness.failures import one_line
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Role, Row, finite
from ..harness.section import Chart, Section
from ..harness.workload import COMPILE_SECONDS, START_SECONDS

SHAPES = {"swin3d_t": (32, 224), "r3d_18": (16, 112), "reduced_swin": (8, 56)}
# the official arithmetic takes 10.4 GiB a clip of swin3d_t: 6 clips fit into 80 GB, 8 do not
BATCHES = {"swin3d_t": (6, 8), "r3d_18": (32, 64), "reduced_swin": (2,)}
STEP_SECONDS = {"swin3d_t": 1.0, "r3d_18": 0.5, "reduced_swin": 0.2}  # eager float32 is the slowest
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


@dataclass(frozen=True)
class Variant:
    """One way to compute a step."""

    name: str
    model: str
    batch: int
    kind: str = "albar"  # albar, cross_entropy, reference
    precision: str = "fp32"  # fp32, bf16, fp64
    compiled: bool = False
    closed_conv: bool = False
    channels_last: bool = False
    joint: bool = False
    recompute: bool = False
    closed_layers: ClosedLayers | Literal["auto"] = "off"  # as --step.closed-layers
    one_backward: bool = False  # both forwards before one backward, as the official code: a reference, not an option

    def estimate(self, steps: int) -> float:
        """Seconds that it should take on a GPU of the H100's class: start, compilation, steps, counting operations."""
        compiling = COMPILE_SECONDS.get((self.model, self.kind == "albar"), 60) if self.compiled else 0
        return START_SECONDS + compiling * (1.3 if self.recompute else 1) + (steps + 4) * STEP_SECONDS[self.model]


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


def measure(chosen: list[Variant], steps: int, device: str, seconds: float | None = None) -> list[Row]:
    """One row a variant. Each lives in a process of its own, and they step in turn, so that other work on the machine
    disturbs all alike; a failure is a row, too.

    Args:
        chosen: what to measure.
        steps: timed steps of each.
        device: cpu or cuda.
        seconds: when a variant is stopped; a step that began counts until then.
    """
    end = None if seconds is None else time.monotonic() + seconds
    processes = [StepProcess(variant, device, end) for variant in chosen]
    samples = [[] for _ in processes]
    for _ in range(steps):
        for process, times in zip(processes, samples, strict=True):
            if (ms := process.ask("time")) is not None:
                times.append(ms)
    rows = []
    for variant, process, times in zip(chosen, processes, samples, strict=True):
        timed, facts = quantiles(times) if times else None, {}
        if timed is not None:
            facts = process.ask("facts") or {}
            rate = variant.batch * 1e3 / timed["p50"]
            if "peak_flops" in facts:
                facts["mfu"] = facts["tflop_per_clip"] * 1e12 * rate / facts.pop("peak_flops")
            facts = {"clips_per_s": rate, **facts}
        if process.error is not None:
            facts["error"] = process.error
        process.close()
        rows.append(variant_row(variant, timed, facts))
    return rows


def variant_row(variant: Variant, timed: dict[str, float] | None, facts: dict) -> Row:
    """The row of one variant.

    Args:
        variant: what was measured.
        timed: p20, p50, p80 of a step in ms, or None where there is none.
        facts: memory, compile time, error, ...
    """
    name = variant.name.replace("reference", "official arithmetic")
    said = {"variant": variant.name, **{k: v for k, v in asdict(variant).items() if k != "name"}}
    return Row(
        title=f"{variant.model}, {name}, {variant.batch} clips",
        **(spread(timed) if timed else {}),
        unit="ms",
        better="lower",
        figure="time",
        label=name,
        group=f"{variant.model}, {variant.batch} clips",
        role=_role(variant),
        facts=said | facts,
    )


def _role(variant: Variant) -> Role:
    if variant.kind == "cross_entropy":
        return "limit"
    return "ours" if variant.name.startswith("albar compiled") and not variant.one_backward else "peer"


class StepProcess:
    """A variant in a process of its own, warmed up.

    Args:
        variant: what it computes.
        device: cpu or cuda.
        end: when it is stopped, on the clock of ``time.monotonic``; None: never.

    Attributes:
        error: why it failed, in one line, else None.
    """

    def __init__(self, variant: Variant, device: str, end: float | None = None):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(variant, device, theirs))
        self._process.start()
        theirs.close()
        self.error: str | None = None
        self._end = end
        self.ask("ready")

    def ask(self, what: str):
        """ "time": ms of one step. "facts": peak memory and the rest of the row. None once it has failed."""
        if self.error is not None:
            return None
        try:
            self._pipe.send(what)
            if self._end is not None and not self._pipe.poll(max(0.0, self._end - time.monotonic())):
                self._process.kill()
                self.error = "stopped at its time limit"
                return None
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            killed = self._process.exitcode == -signal.SIGKILL  # what the system does when memory runs out
            answer = RuntimeError("killed, out of memory?" if killed else "the process died")
        if isinstance(answer, Exception):
            self.error = str(answer)
            return None
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(variant: Variant, device: str, pipe) -> None:
    try:
        answers = _warmed_up(variant, device)
        while True:
            pipe.send(answers[pipe.recv()]())
    except EOFError:
        return
    except Exception as error:
        pipe.send(RuntimeError(one_line(error)))


def _warmed_up(variant: Variant, device: str) -> dict[str, Callable]:
    """What a ``StepProcess`` answers."""
    gpu = device == "cuda"
    if gpu:
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(1)
    step, model, method = make_step(variant, device)
    synchronise = torch.cuda.synchronize if gpu else lambda: None
    clock = time.perf_counter if gpu else time.process_time

    def timed() -> float:
        begin = clock()
        step()
        synchronise()
        return (clock() - begin) * 1e3

    begin = time.perf_counter()
    timed()
    first = time.perf_counter() - begin
    timed()

    def facts() -> dict:
        found = {"first_step_s": first, "peak_mib": _gpu_peak(step) if gpu else cpu_peak(step) / 2**20}
        if not gpu:
            found["resident_mib"] = _resident_peak(step)
        if variant.compiled:
            found["graph_breaks"] = sum(torch._dynamo.utils.counters["graph_break"].values())
        if gpu:
            found["tflop_per_clip"] = step_flops(model, method, *SHAPES[variant.model]) / 1e12
            peak = peak_flops(torch.cuda.get_device_name())
            found |= {"peak_flops": peak} if peak else {}
        return found

    return {"ready": lambda: True, "time": timed, "facts": facts}


def network(name: str) -> nn.Module:
    """The model of a benchmark, random weights."""
    torch.manual_seed(0)
    if name == "reduced_swin":
        return SwinTransformer3d([2, 4, 4], 48, [2, 2], [3, 6], [8, 7, 7], stochastic_depth_prob=0.0, num_classes=51)
    return build_model(name, 51)


def make_step(variant: Variant, device: str) -> tuple[Callable[[], object], nn.Module, Albar | Baseline]:
    """A function that trains one step on fixed random clips, its network, and its method."""
    frames, size = SHAPES[variant.model]
    dtype = torch.float64 if variant.precision == "fp64" else torch.float32
    model = network(variant.model).to(device, dtype).train()
    layout = torch.channels_last_3d if variant.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    if variant.kind != "reference":  # which keeps the published network as it is
        look_up_position_biases(model)
    motion = torch.randn(variant.batch, 3, frames, size, size, device=device, dtype=dtype).contiguous(
        memory_format=layout
    )
    middle = motion[:, :, frames // 2 : frames // 2 + 1]
    static = middle.expand_as(motion).contiguous(memory_format=layout)
    target = torch.arange(variant.batch, device=device) % 51
    method = Baseline() if variant.kind == "cross_entropy" else Albar(forward="joint" if variant.joint else "two")
    switch = "on" if variant.closed_conv else "off"
    close_network(model, switch, variant.closed_layers, penalty=method.twice_differentiable)
    if variant.kind == "reference":
        weights = Albar()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05)
        return lambda: reference_step(model, optimiser, motion, static, target, weights), model, method
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    loss_module = LossModule(model, method, torch.bfloat16 if variant.precision == "bf16" else None)
    compile_loss(loss_module, "default" if variant.compiled else "off", variant.recompute)
    adversarial = variant.kind == "albar"

    def step():
        batch = Batch(motion, middle if adversarial else None, target)
        passes = step_passes(method, len(batch), adversarial)
        backward_in_passes(loss_module, batch, one_pass(len(batch)) if variant.one_backward else passes)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step, model, method


def one_pass(clips: int) -> list[Pass]:
    """The old order of a step: motion and static clips both forward, then one backward of the sum."""
    return [Pass("all", slice(0, clips), 1.0, penalise=True, static=True, last=True)]


def reference_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, motion: Tensor, static: Tensor, target: Tensor, weights: Albar
) -> float:
    """One step with the official code's arithmetic (github.com/UCF-CRCV/ALBAR), in our words."""
    static = static.detach().requires_grad_(True)
    logits, static_logits = model(motion), model(static)
    p = F.softmax(static_logits, 1)
    entropy = (p * F.log_softmax(static_logits, 1)).sum(1).mean()
    ones = torch.ones_like(static_logits)
    (g,) = torch.autograd.grad(static_logits, static, ones, create_graph=True, retain_graph=True)
    penalty = (g.square().sum((1, 2, 3)) + 1e-12).sqrt().mean()
    loss = (
        F.cross_entropy(logits, target)
        - weights.w_adv * F.cross_entropy(static_logits, target)
        + weights.w_ent * entropy
        + weights.w_gp * penalty
    )
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def _gpu_peak(step: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**20


def _resident_peak(step: Callable[[], object]) -> float:
    # Compiling needs more memory than the step, and the C library keeps what was freed: give large blocks back at once,
    # and start the kernel's high-water mark anew. The least of three.
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    step()
    found = []
    for _ in range(3):
        library.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        step()
        found.append(_status("VmHWM") - before)
    return min(found) / 1024


_M_MMAP_THRESHOLD = -3  # malloc.h


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


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
                one, two = (r.value if what == "time" else r.facts[what] for r in (first[variant], first[other]))
                ratio = one / two if finite(one) and finite(two) else None
                found.append(Row(title=f"{model}: {name}", value=ratio, unit="times", at_most=most))
        if not gpu and "albar compiled" in first:
            breaks = first["albar compiled"].facts["graph_breaks"]
            found.append(Row(title=f"{model}: graph breaks", value=breaks, unit="breaks", at_most=0))
    return found

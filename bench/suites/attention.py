"""Attention with a double backward against math attention, SDPA and FlexAttention: time, and what its graph keeps.

On a GPU every provider is timed in one process, in bfloat16, on the shapes of Video Swin and VideoMAE, the host's time
for a call apart from the device's. Without one, plain torch is timed on smaller shapes in float32, in turns, by process
CPU time, and the GPU's times are predicted from counted operations and bytes (kernels/attention/costs.py), which is no
measurement.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...kernels import attention
from ...kernels.attention.costs import PASSES, launch_costs
from ..harness.gpu_clock import device_milliseconds, host_milliseconds
from ..harness.planned_seconds import START_SECONDS
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Row
from ..harness.section import Chart, Section

SECTIONS = {
    "attention": Section(
        title="Attention with a double backward",
        text="One layer: forward, gradient, and gradient of the gradient, as the penalty takes them.",
        order=52,
        picture="kernels",
        charts={
            **{
                kind: Chart(
                    title=f"Attention: {kind}",
                    reading="One layer. Empty where a peer has no such pass.",
                    main=kind == "double backward",
                )
                for kind in PASSES
            },
            "kept": Chart(
                title="Attention: what the graph keeps for the double backward",
                reading="Bytes that the forward and the first gradient save, counted.",
                main=False,
            ),
            "predicted": Chart(
                title="Attention: predicted for one H100",
                reading="From counted operations and bytes: the bar if nothing overlaps, its lower end if everything "
                "does. No measurement.",
                whiskers="everything overlaps to nothing overlaps",
                main=False,
            ),
        },
    )
}
PROVIDERS = {
    "unstill": "unstill",
    "math": "math attention",
    "sdpa": "torch SDPA, its own choice",
    "sdpa math": "torch SDPA, math kernel",
    "flex": "FlexAttention, compiled",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One layer's shape."""

    name: str
    batch: int
    heads: int
    tokens: int
    size: int
    biased: bool

    @property
    def shape(self) -> str:
        return f"{self.batch}x{self.heads}x{self.tokens}x{self.size}"


SWIN = Case("Video Swin-T, stage 1, one clip", 128, 3, 392, 32, True)
VIDEOMAE = Case("VideoMAE-B, two clips", 2, 12, 1568, 64, False)
ON_A_CPU = (
    dataclasses.replace(SWIN, name="Video Swin-T, stage 1, 16 windows", batch=16),
    dataclasses.replace(VIDEOMAE, name="VideoMAE-B, one clip, two heads", batch=1, heads=2),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionBench:
    """Time one attention layer's three passes."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    rounds: int = 5
    """Without a GPU: measurements of each pass."""
    milliseconds: int = 200
    """With a GPU: time spent on each measurement."""


def run(config: AttentionBench) -> Path:
    """Measure (and, without a GPU, predict), print the table, write the result file and return its path."""
    gpu = torch.cuda.is_available()
    notes = ["backward: dQ, dK, dV and, where there is a bias, dB. double backward: from cotangents of dQ, dK, dV."]
    if gpu:
        notes.append("times are the GPU's, L2 flushed before each call; host_ms is the host's time for a call.")
    else:
        notes.append(
            "No GPU on this machine: measured times are of plain torch on a CPU, one thread, process CPU time."
        )
    results = ResultFile("attention", out=config.out, notes=notes)
    for case in (SWIN, VIDEOMAE) if gpu else ON_A_CPU:
        inputs = Inputs.draw(case, "cuda" if gpu else "cpu")
        for kind in PASSES:
            results.add(*timed_rows(config, case, inputs, kind))
        results.add(*kept_rows(case, inputs))
    for case in (SWIN, VIDEOMAE):
        results.add(*predicted_rows(case))
    results.show("attention")
    return results.finish()


def planned(config: AttentionBench) -> float:
    """Seconds that a GPU machine should need at most."""
    compiling = 15 + 2 * 15  # our kernels; FlexAttention for each case
    return START_SECONDS + compiling + 2 * len(PASSES) * len(PROVIDERS) * (3 * config.milliseconds / 1e3 + 0.3)


# ------------------------------------------------------------------------------------------------- providers


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Random tensors of one case; bfloat16 on a GPU, float32 on a CPU."""

    tokens: list[Tensor]
    """q, k, v, requiring gradients."""
    others: list[Tensor]
    """dO, requiring a gradient, and the cotangents of dQ, dK and dV."""
    bias: Tensor | None
    """(H, N, N) float32, requiring a gradient."""
    regions: Tensor | None
    """int8 (windows, N), or None where the case has no bias."""

    @classmethod
    def draw(cls, case: Case, device: str) -> "Inputs":
        torch.manual_seed(0)
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        shape = (case.batch, case.heads, case.tokens, case.size)
        drawn = [torch.randn(shape, device=device, dtype=dtype) for _ in range(7)]
        for tensor in drawn[:4]:
            tensor.requires_grad_()
        if not case.biased:
            return cls(drawn[:3], drawn[3:], None, None)
        bias = torch.randn(case.heads, case.tokens, case.tokens, device=device, requires_grad=True)
        regions = torch.randint(0, 3, (8, case.tokens), device=device, dtype=torch.int8)
        return cls(drawn[:3], drawn[3:], bias, regions)

    @property
    def leaves(self) -> list[Tensor]:
        return self.tokens + ([] if self.bias is None else [self.bias])

    def mask(self) -> Tensor | None:
        """bias plus the mask of shifted windows, (B, H, N, N): what attention without regions has to be given."""
        if self.bias is None or self.regions is None:
            return None
        apart = (self.regions[:, :, None] != self.regions[:, None, :]) * -100.0
        repeats = len(self.tokens[0]) // len(apart)
        return self.bias + apart[:, None].repeat(repeats, 1, 1, 1)


def ours(inputs: Inputs) -> Tensor:
    q, k, v = inputs.tokens
    return attention(q, k, v, bias=inputs.bias, regions=inputs.regions)


def math_attention(inputs: Inputs) -> Tensor:
    """Whole matrices, scores and softmax in float32, as under autocast."""
    q, k, v = inputs.tokens
    score = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    mask = inputs.mask()
    return (score if mask is None else score + mask).softmax(-1).to(q.dtype) @ v


def sdpa(inputs: Inputs) -> Tensor:
    (q, k, v), mask = inputs.tokens, inputs.mask()
    return F.scaled_dot_product_attention(q, k, v, None if mask is None else mask.to(q.dtype))


def sdpa_math(inputs: Inputs) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return sdpa(inputs)


@functools.cache
def _compiled_flex() -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex(inputs: Inputs) -> Tensor:
    bias, regions = inputs.bias, inputs.regions
    if bias is None or regions is None:
        return _compiled_flex()(*inputs.tokens)

    def score_mod(score, window, head, row, column):
        own = window % len(regions)
        apart = regions[own, row] != regions[own, column]
        return score + bias[head, row, column] + torch.where(apart, -100.0, 0.0)

    return _compiled_flex()(*inputs.tokens, score_mod=score_mod)


def providers(device: str) -> dict[str, Callable[[Inputs], Tensor]]:
    """FlexAttention is made for GPUs; its kernel for CPUs has no backward."""
    found = {"unstill": ours, "math": math_attention, "sdpa": sdpa, "sdpa math": sdpa_math, "flex": flex}
    return found if device == "cuda" else {name: found[name] for name in ("unstill", "math", "sdpa math")}


def one_pass(function: Callable[[Inputs], Tensor], inputs: Inputs, kind: str) -> Callable[[], object]:
    """A call that makes one pass of ``kind`` and nothing else.

    Raises:
        RuntimeError, NotImplementedError: the function has no such pass."""
    if kind == "forward":
        return lambda: function(inputs)
    do, *cotangents = inputs.others
    out = function(inputs)
    if kind == "backward":
        return lambda: torch.autograd.grad(out, inputs.leaves, do, retain_graph=True)
    first = torch.autograd.grad(out, inputs.tokens, do, create_graph=True)
    return lambda: torch.autograd.grad(first, [*inputs.leaves, do], cotangents, retain_graph=True)


# ------------------------------------------------------------------------------------------------- rows


def timed_rows(config: AttentionBench, case: Case, inputs: Inputs, kind: str) -> list[Row]:
    """A row of every provider; without a value, and with the reason, where it has no such pass."""
    device = inputs.tokens[0].device.type
    calls, refused = {}, {}
    for name, function in providers(device).items():
        try:
            calls[name] = one_pass(function, inputs, kind)
            calls[name]()  # compiles, and shows whether there is such a pass
        except Exception as error:  # torch's own errors have many types
            calls.pop(name, None)
            refused[name] = str(error).partition("\n")[0][:120]
    if device == "cuda":
        timed = {name: device_milliseconds(call, config.milliseconds) for name, call in calls.items()}
        host = {name: {"host_ms": host_milliseconds(call)} for name, call in calls.items()}
    else:
        timed, host = in_turns(config, calls), {}
    least = min((times["p50"] for name, times in timed.items() if name != "unstill"), default=None)
    rows = []
    for name in providers(device):
        said: dict[str, Any] = dict(
            title=f"{kind}, {case.name}, {PROVIDERS[name]}", label=PROVIDERS[name], group=case.name
        )
        said |= dict(figure=kind, role="ours" if name == "unstill" else "peer", unit="ms", better="lower")
        facts = {"kind": "measured", "pass": kind, "provider": name, "shape": case.shape, "biased": case.biased}
        if name in refused:
            rows.append(Row(**said, detail=refused[name], facts=facts))
            continue
        if name == "unstill" and least:
            facts["of_the_fastest_peer"] = timed[name]["p50"] / least
        rows.append(Row(**said, **spread(timed[name]), facts=facts | host.get(name, {})))
    return rows


def in_turns(config: AttentionBench, calls: dict[str, Callable]) -> dict[str, dict[str, float]]:
    """Milliseconds of CPU time on one thread, the providers one after another in every round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    try:
        for _ in range(config.rounds):
            for name, call in calls.items():
                start = time.process_time()
                call()
                samples[name].append(1e3 * (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    return {name: quantiles(times) for name, times in samples.items()}


def kept_rows(case: Case, inputs: Inputs) -> list[Row]:
    """Bytes that forward and first gradient save, each storage once, without the leaves."""
    rows = []
    for name, function in providers(inputs.tokens[0].device.type).items():
        given = {tensor.untyped_storage().data_ptr() for tensor in [*inputs.leaves, *inputs.others]}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor, kept: dict = kept, given: set = given) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        graph = []
        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                graph.append(function(inputs))
                graph.append(
                    torch.autograd.grad(graph[0], inputs.tokens, inputs.others[0], create_graph=True)
                )  # kept alive, so that no address is used twice
        except Exception:  # a peer without a double backward: its time's row has the reason
            continue
        facts = {"kind": "counted", "provider": name, "shape": case.shape, "biased": case.biased}
        rows.append(
            Row(
                title=f"kept for the double backward, {case.name}, {PROVIDERS[name]}",
                value=float(np.sum(list(kept.values()), initial=0)) / 1e6,
                unit="MB",
                better="lower",
                figure="kept",
                label=PROVIDERS[name],
                group=case.name,
                role="ours" if name == "unstill" else "peer",
                facts=facts,
            )
        )
    return rows


def predicted_rows(case: Case) -> list[Row]:
    """What the Triton form's launches take on an H100, by counting."""
    rows = []
    shape = (case.batch, case.heads, case.tokens, case.tokens, case.size)
    for kind in PASSES:
        costs = list(launch_costs(kind, shape, biased=case.biased))
        best, worst = (1e3 * sum(getattr(cost, f"seconds_at_{end}") for cost in costs) for end in ("best", "worst"))
        facts = {"kind": "predicted", "pass": kind, "provider": "unstill", "shape": case.shape, "biased": case.biased}
        facts |= {
            "gflop": sum(cost.flop for cost in costs) / 1e9,
            "padded_gflop": sum(c.padded_flop for c in costs) / 1e9,
        }
        facts |= {"memory_mb": sum(cost.memory_bytes for cost in costs) / 1e6}
        facts |= {"cache_mb": sum(cost.cache_bytes for cost in costs) / 1e6}
        rows.append(
            Row(
                title=f"{kind}, {case.name}, predicted for one H100",
                value=worst,
                p20=best,
                p80=worst,
                unit="ms",
                better="lower",
                figure="predicted",
                label=kind,
                group=case.name,
                facts=facts,
            )
        )
    return rows

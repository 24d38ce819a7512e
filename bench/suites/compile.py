"""`unstill bench compile`: what a first start of training pays for the compiled ALBAR step, and what a second one pays.

CPU time of a process and its compilers, one thread, from the first call of a step to its end, less a second step. The
network is the full swin3d_t; a small clip changes sizes, not the number of operations to compile. Against the step that
makes both forwards before one backward through torchvision's attention, with a C++ file for each kernel.
"""

import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ...trainer import compile_cache
from ..harness.failures import one_line
from ..harness.record import ResultFile
from ..harness.row import Role, Row, finite
from ..harness.section import Chart, Section
from ..harness.training_step import Variant, make_step

MOST_COLD, MOST_SECOND = 0.6, 0.35  # of the reference's cold start, of the own cold start

SECTIONS = {
    "compile": Section(
        title="Compiling the step",
        text="CPU time that a first start of ALBAR on swin3d_t pays for compiling, and a second one.",
        order=62,
        charts={
            "compile": Chart(
                title="Compiling ALBAR's step",
                reading="CPU time of the process and its compilers, one thread.",
            ),
        },
    )
}


@dataclass(frozen=True, kw_only=True)
class CompileBench:
    """Compile a step with empty caches, and start once more."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    model: str = "swin3d_t"
    """The network."""
    clip: tuple[int, int] = (4, 32)
    """Frames and side of the clips, pixels."""
    reference: bool = True
    """Also compile the step with one backward, torchvision's attention and a C++ file for each kernel."""


def run(config: CompileBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    results = ResultFile("compile", out=config.out, notes=_NOTES)
    ours = Variant("albar", config.model, 1, compiled=True, closed_layers="auto", clip=config.clip)
    reference = Variant("albar, one backward", config.model, 1, compiled=True, one_backward=True, clip=config.clip)
    found: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as caches:
        starts = [("cold", ours), ("second", ours)] + ([("cold", reference)] if config.reference else [])
        for start, variant in starts:
            seconds, error = compile_seconds(variant, Path(caches) / str(variant.one_backward))
            found[f"{start} {variant.name}"] = seconds
            results.add(start_row(start, variant, seconds, error))
    results.add(
        *(
            [ratio_row("cold start over that with one backward", found, "cold albar", "cold albar, one backward")]
            if config.reference
            else []
        ),
        ratio_row("second start over cold start", found, "second albar", "cold albar"),
    )
    results.show("compiling a step")
    return results.finish()


_NOTES = (
    "Each start is a process of its own; caches of compiled code are empty at a cold start. CPU time of compilers that "
    "the process starts is in it.",
)


def start_row(start: str, variant: Variant, seconds: float | None, error: str) -> Row:
    """One start of one variant."""
    frames, size = variant.shape
    role: Role = "peer" if variant.one_backward else "ours"
    facts = {"model": variant.model, "clip": f"{frames}x{size}x{size}", "start": start, "variant": variant.name}
    return Row(
        title=f"{variant.model} {frames}x{size}x{size}, {variant.name}: {start} start",
        value=seconds,
        unit="CPU-seconds",
        better="lower",
        figure="compile",
        label=f"{variant.name}, {start} start",
        role=role,
        facts=facts | ({"error": error} if error else {}),
    )


def ratio_row(title: str, found: dict[str, float | None], one: str, two: str) -> Row:
    """One start over another."""
    most = MOST_SECOND if one.startswith("second") else MOST_COLD
    a, b = found[one], found[two]
    return Row(title=title, value=a / b if finite(a) and finite(b) else None, unit="times", at_most=most)


def compile_seconds(variant: Variant, cache: Path) -> tuple[float | None, str]:
    """CPU-seconds of compiling in a new process with this folder for compiled code, and an error in one line."""
    before = os.environ.copy()
    os.environ |= {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_start, args=(variant, theirs))
    try:
        process.start()
        theirs.close()
        return ours.recv()
    except EOFError:
        return None, "the process died"
    finally:
        process.join()
        os.environ.clear()
        os.environ |= before


def _start(variant: Variant, pipe) -> None:
    try:
        torch.set_num_threads(1)
        if variant.one_backward:
            compile_cache.compile_kernels_together = lambda: None
        step, _, _ = make_step(variant, "cpu")
        pipe.send((_cpu_seconds(step) - _cpu_seconds(step), ""))
    except Exception as error:
        pipe.send((None, one_line(error)))


def _cpu_seconds(function: Callable[[], object]) -> float:
    begin = _spent()
    function()
    return _spent() - begin


def _spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

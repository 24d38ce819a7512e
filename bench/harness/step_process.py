"""Ways to compute a step, measured side by side.

Each is in a process of its own, so that its peak memory is its own.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import asdict

import torch

from ...trainer.monitoring.flops import peak_flops, step_flops
from .allocator import cpu_peak, gpu_peak, resident_peak
from .failures import one_line
from .record import quantiles, spread
from .row import Role, Row
from .training_step import Variant, make_step


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
            facts = {"clips_per_s": rate, **facts, "turns_ms": [round(ms, 2) for ms in times]}
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
    said = {"variant": variant.name, **{k: v for k, v in asdict(variant).items() if k != "name" and v is not None}}
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
        found = {"first_step_s": first, "peak_mib": gpu_peak(step) / 2**20 if gpu else cpu_peak(step) / 2**20}
        if not gpu:
            found["resident_mib"] = resident_peak(step) / 2**20
        if variant.compiled:
            found["graph_breaks"] = sum(torch._dynamo.utils.counters["graph_break"].values())
        if gpu:
            found["tflop_per_clip"] = step_flops(model, method, *variant.shape) / 1e12
            peak = peak_flops(torch.cuda.get_device_name())
            found |= {"peak_flops": peak} if peak else {}
        return found

    return {"ready": lambda: True, "time": timed, "facts": facts}

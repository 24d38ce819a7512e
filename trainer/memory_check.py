"""Does a run fit into the device's memory? Said before its first step, and in one line where it turns out not to."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ..pipeline.errors import InputError
from .config import TrainConfig
from .distributed import Ranks
from .known_failures import why_not_in_parts
from .memory_plan import RECOMPUTE, MemoryPlan, plan_memory
from .state import TrainState
from .step import TrainStep
from .step_config import GRAPH_MODES

log = logging.getLogger(__name__)


MOST_STATIC_PARTS = 8  # that are tried: a trace takes longer with each


class OutOfMemory(InputError):
    """A step does not fit into the device's memory."""


def check_memory(
    config: TrainConfig, state: TrainState, step: TrainStep, classes: int, ranks: Ranks
) -> MemoryPlan | None:
    """Log what a step will need and what the device has; choose its static parts where the run leaves them open.

    Args:
        config: the run's; nothing is done where ``memory_check`` is off.
        state, step, classes, ranks: of the run.

    Returns:
        The plan, or None where the step cannot be traced; that is logged, and the run goes on.

    Raises:
        OutOfMemory: it cannot fit, with what would.
    """
    if config.memory_check == "off":
        return None

    def in_static_parts(parts: int | None) -> MemoryPlan:
        networks = state.model, state.method_module
        return plan_memory(config, *networks, step.tables, classes=classes, ranks=ranks.world_size, static_parts=parts)

    try:
        plan = in_static_parts(None)
    except Exception as error:  # an operation without a fake form, a model's own code; the run does not need the number
        reason = (str(error).splitlines() or [""])[0][:200]
        log.info("memory: unknown, the step cannot be traced (%s: %s)", type(error).__name__, reason)
        return None
    available, where = device_memory(ranks.device)
    indivisible = config.step.compile in GRAPH_MODES or why_not_in_parts(state.model, config.method, config.model.name)
    divisible = None if indivisible else in_static_parts
    clips, chosen = config.batch_size // ranks.world_size, None
    if divisible and config.step.static_parts == 0 and plan.peak(clips) > available:
        chosen = fewest_static_parts(config, clips, available, divisible)
    if chosen:
        plan = in_static_parts(chosen)
        step.take_static_parts(chosen)
    if ranks.first:
        parts = f"; the static clips' pass is taken in {chosen} parts" if chosen else ""
        log.info("memory: %s%s", summary(config, plan, ranks.world_size, available, where), parts)
    refuse_what_cannot_fit(config, plan, ranks.world_size, available, where, divisible)
    return plan


def summary(config: TrainConfig, plan: MemoryPlan, world_size: int, available: int, where: str) -> str:
    """One line: what a step needs, what it is made of, what there is, and how many clips would fit."""
    clips = config.batch_size // world_size
    estimate = "" if config.step.compile == "off" else ", estimated from the eager step"
    return (
        f"a step of {clips} clips needs {amount(plan.peak(clips))}{estimate} ({amount(plan.per_clip)} a clip, "
        f"{amount(plan.fixed)} for weights and optimiser); {where} has {amount(available)}, room for "
        f"{plan.largest_batch(available):,} clips"
    )


def refuse_what_cannot_fit(
    config: TrainConfig,
    plan: MemoryPlan,
    world_size: int,
    available: float,
    where: str,
    in_static_parts: Callable[[int], MemoryPlan] | None = None,
) -> None:
    """Raise where the plan needs more than there is.

    Args:
        config, plan: of the run.
        world_size: processes of the run.
        available, where: see ``device_memory``.
        in_static_parts: plans the run with so many static parts, where it may have them.

    Raises:
        OutOfMemory: in one line, with the settings that fit.
    """
    clips = config.batch_size // world_size
    if plan.peak(clips) > available:
        parts = in_static_parts and fewest_static_parts(config, clips, available, in_static_parts)
        more = [f"--step.static-parts {parts}"] if parts else []
        raise OutOfMemory(
            f"batch_size {config.batch_size}: a step of {clips} clips in a process needs about "
            f"{amount(plan.peak(clips))}, and {where} has {amount(available)}; "
            f"{remedies(config, plan, world_size, available, more)}; --memory-check off starts all the same"
        )


def fewest_static_parts(
    config: TrainConfig, clips: int, available: float, in_static_parts: Callable[[int], MemoryPlan]
) -> int | None:
    """The smallest number of static parts with which ``clips`` fit; None where no number is enough."""
    part = clips // config.step.accumulate
    first, last = max(2, config.step.static_parts + 1), min(part, MOST_STATIC_PARTS)
    choices = [parts for parts in range(first, last + 1) if part % parts == 0]
    if not choices or in_static_parts(choices[-1]).peak(clips) > available:  # a trace each: the last one says whether
        return None
    return next(parts for parts in choices if in_static_parts(parts).peak(clips) <= available)


def remedies(config: TrainConfig, plan: MemoryPlan, world_size: int, available: float, more: Sequence[str] = ()) -> str:
    """The settings that fit into ``available`` bytes, each alone; ``more`` are found already."""
    clips, found = config.batch_size // world_size, []
    if most := plan.largest_batch(available):
        most -= most % config.step.accumulate if most >= config.step.accumulate else 0
        found.append(f"--batch-size {most * world_size}")
    for parts in range(2, clips // config.step.accumulate + 1):
        total = parts * config.step.accumulate
        if clips % total == 0 and plan.in_parts(parts).peak(clips) <= available:
            found.append(f"--step.accumulate {total}")
            break
    # closed layers leave nothing to save by it: 1.04 of the memory on a reduced Swin (bench/results/step-cpu.json)
    could_recompute = config.step.compile != "off" and config.step.closed_layers == "off"
    could_recompute = could_recompute and not config.step.recompute and config.method.twice_differentiable
    if could_recompute and plan.scaled(RECOMPUTE).peak(clips) <= available:
        found.append("--step.recompute")
    found += more
    if not found:
        return "not even one clip fits; use a smaller model or clip, or a device with more memory"
    return f"what fits: {' or '.join(found)}"


@contextmanager
def memory_errors(config: TrainConfig, world_size: int = 1) -> Iterator[None]:
    """Inside, running out of memory is one line that names what to change.

    Raises:
        OutOfMemory: memory ran out, on a CPU or a GPU; every other error passes unchanged.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parts, found = 2 * config.step.accumulate, []
        if config.batch_size // world_size > config.step.accumulate:
            found = [f"--batch-size {max(1, config.batch_size // 2)}", f"--step.accumulate {parts}"]
        if config.step.compile != "off" and config.step.closed_layers == "off" and not config.step.recompute:
            found.append("--step.recompute")
        if config.method.static_pass:
            found.append(f"--step.static-parts {2 * max(1, config.step.static_parts)} (without batch norm)")
        advice = " or ".join(found) or "a smaller model or clip"
        reason = (str(error).splitlines() or [""])[0][:160]
        raise OutOfMemory(
            f"out of memory with batch_size {config.batch_size} on {world_size} process(es): use {advice}; the last "
            f"checkpoint is intact ({reason or type(error).__name__})"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CPU or a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError, OutOfMemory)):
        return True
    text = str(error)
    said = ("DefaultCPUAllocator", "CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in text for words in said)


def amount(size: float) -> str:
    """Bytes with three digits: ``9.16 GiB``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1024:.3g} KiB"


def device_memory(device: torch.device) -> tuple[int, str]:
    """Bytes that this process may use, and of what: the GPU's memory, or its share of what the machine has free."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.total_memory, properties.name
    limits = [_free_memory()]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # there is no such group, or its limit is "max"
            continue
    share = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min(limits) // share, "this machine" if share == 1 else f"each of {share} processes on this machine"


def _free_memory() -> int:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

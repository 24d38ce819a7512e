"""Batch augmentations, eager and compiled: time on one core, bytes moved, and what compiling costs.

Each augmentation runs as a training step calls it, on float32 clips, eager and compiled in turns and with the same
draws. Compiled is what `--step.compile` makes of it: the chain of operations on every pixel is one pass. What a GPU
would gain is a matter of the bytes moved, which are counted: of every eager operation its operands and its result, of a
compiled chain those of the chain. Rows of a part alone say what compiling it would do that stays eager in training.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...pipeline.options import at_least, check_options
from ...trainer.augmentations import ActorCutMix, BackgroundErasing, Mixup, RandAugment, StillMix, VideoMix
from ...trainer.augmentations import picture_operators as pictures
from ...trainer.augmentations.base import BatchAugmentation, Context
from ...trainer.augmentations.compiled import compiled
from ...trainer.augmentations.foreground import foreground_mask
from ...trainer.augmentations.rand_augment import to_pixels
from ...trainer.augmentations.recast import random_rotations, recast
from ...trainer.batch import PEOPLE, Batch
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Row
from ..harness.section import Chart, Section

SHAPES = ((8, 16, 112), (4, 32, 224))  # clips, frames, side in pixels
AUGMENTATIONS: dict[str, BatchAugmentation] = {
    "Mixup": Mixup(prob=1.0),
    "CutMix": VideoMix(prob=1.0),
    "BE": BackgroundErasing(prob=1.0),
    "StillMix": StillMix(prob=1.0),
    "ActorCutMix": ActorCutMix(prob=1.0),
    "RandAugment": RandAugment(),
}
CLASSES, MEAN, STD = 400, (0.43, 0.39, 0.35), (0.22, 0.21, 0.25)
COMPILED, EAGER = "compiled", "eager"

SECTIONS = {
    "augmentations": Section(
        title="Batch augmentations",
        text="Every pixel is read and written once by a compiled chain, and by each operation of an eager one.",
        order=83,
        charts={
            "time": Chart(title="A batch augmented, one core", reading="CPU time, in turns with the same draws."),
            "bytes": Chart(
                title="Bytes moved to augment a batch",
                reading="Counted from the operations' operands and results; on a GPU they are the time.",
                main=False,
                column="megabytes",
                of="time",
                unit="MB",
                better="lower",
            ),
        },
    )
}


@dataclass(frozen=True, kw_only=True)
class AugmentationsBench:
    """Time the batch augmentations, eager and compiled."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    turns: int = 8
    """Measurements of each, with other draws every time."""
    shapes: tuple[tuple[int, int, int], ...] = SHAPES
    """Clips, frames and side in pixels of a batch."""

    def __post_init__(self):
        check_options(self, turns=at_least(2))


def run(config: AugmentationsBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = ResultFile("augmentations", out=config.out, notes=_NOTES)
    for clips, frames, side in config.shapes:
        batch = random_batch(clips, frames, side)
        for name, augmentation in AUGMENTATIONS.items():
            results.add(*rows(name, augmentation, batch, config.turns))
    for name, (function, arguments) in left_eager(random_batch(*config.shapes[0]).motion).items():
        results.add(part_row(name, function, arguments, config.turns))
    torch.set_num_threads(threads)
    results.show("Batch augmentations", ["megabytes", "compile_cpu_s", "forms_compiled"])
    return results.finish()


_NOTES = (
    "float32 clips, one thread, CPU time; every turn has other draws. compile_cpu_s: CPU seconds of the first call, "
    "compiler included; the first of a process also loads it. forms_compiled: graphs compiled over all turns",
    "megabytes are counted, not measured: what an operation reads and writes, a tensor once; views move nothing",
    "a part alone: time compiled over time eager; RandAugment's operators on a quarter of the clips, as it draws them",
)


def random_batch(clips: int, frames: int, side: int) -> Batch:
    """Normal noise, and a box where a person is."""
    torch.manual_seed(0)
    people = torch.zeros(clips, 1, frames, side, side, dtype=torch.uint8)
    people[..., side // 4 : side // 2, side // 4 : side // 2] = 1
    return Batch(torch.randn(clips, 3, frames, side, side), None, torch.arange(clips), per_sample={PEOPLE: people})


def rows(name: str, augmentation: BatchAugmentation, batch: Batch, turns: int) -> list[Row]:
    """Time and bytes of one augmentation, compiled and eager."""
    if not augmentation.needs_people:
        batch = replace(batch, per_sample={})
    eager = Context(CLASSES, MEAN, STD)
    forms = {COMPILED: replace(eager, compile=True), EAGER: eager}

    def call(form: str, turn: int) -> None:
        augmentation(batch, np.random.default_rng(turn), forms[form])

    times, compiling = in_turns(call, turns)
    clips, _, frames, side, _ = batch.motion.shape
    group = f"{name}, {clips} clips {frames}x{side}x{side}"
    made = []
    for form, own in times.items():
        moved = bytes_moved(lambda context: augmentation(batch, np.random.default_rng(0), context), forms[form])
        facts = {"megabytes": round(moved / 1e6, 1)} | (compiling if form == COMPILED else {})
        made.append(
            Row(
                title=f"{group}, {form}",
                **spread(quantiles(own)),
                unit="ms",
                better="lower",
                figure="time",
                label=form,
                group=group,
                role="ours" if form == COMPILED else "peer",
                facts=facts,
            )
        )
    return made


def in_turns(call: Callable[[str, int], object], turns: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """CPU milliseconds of ``call(form, turn)``, and what the first compiled one cost.

    Returns:
        ``(times, facts)``: form -> ``turns`` numbers; ``compile_cpu_s``, and ``forms_compiled`` over all turns.
    """
    graphs, began = counters["stats"]["unique_graphs"], _cpu_seconds()
    call(COMPILED, 0)
    seconds = _cpu_seconds() - began
    call(EAGER, 0)
    times: dict[str, list[float]] = {COMPILED: [], EAGER: []}
    for turn in range(turns):
        for form, own in times.items():
            began = time.thread_time()
            call(form, turn)
            own.append(1000 * (time.thread_time() - began))
    graphs = counters["stats"]["unique_graphs"] - graphs
    return times, {"compile_cpu_s": round(seconds, 1), "forms_compiled": graphs}


def left_eager(motion: Tensor) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Parts that training does not compile, and what they are given; ``motion`` (B,3,T,h,w)."""
    clips = len(motion)
    mean, std = Context(CLASSES, MEAN, STD).normalisation(motion.device)
    partner, rotation = torch.arange(clips).roll(1), torch.from_numpy(random_rotations(clips, np.random.default_rng(0)))
    pixels = to_pixels(motion[: max(1, clips // 4)], mean, std)
    strength = torch.full((len(pixels),), 0.8)
    return {
        "Recast": (recast, (motion, partner, partner, rotation)),
        "FAME's mask": (foreground_mask, ((motion * std + mean).clamp(0, 1), 0.5)),
        "RandAugment, saturation": (pictures.saturation, (pixels, strength)),
        "RandAugment, solarize": (pictures.solarize, (pixels, 160 * strength)),
        "RandAugment, sharpness": (pictures.sharpness, (pixels, strength)),
        "RandAugment, equalize": (pictures.equalize, (pixels, strength)),
        "RandAugment, rotate": (pictures.rotate, (pixels, 20 * strength)),
    }


def part_row(name: str, function: Callable[..., Any], arguments: tuple[Any, ...], turns: int) -> Row:
    """Time compiled over time eager of one part."""
    forms = {COMPILED: compiled(function), EAGER: function}
    times, facts = in_turns(lambda form, _: forms[form](*arguments), turns)
    ratio = np.median(times[COMPILED]) / np.median(times[EAGER])
    facts |= {"eager_ms": round(float(np.median(times[EAGER])), 2)}
    return Row(title=f"{name} alone: compiled over eager", value=round(float(ratio), 2), unit="x", facts=facts)


def bytes_moved(call: Callable[[Context], object], context: Context) -> int:
    """Bytes that an augmentation reads and writes; with ``context.compile`` a chain counts as one operation."""
    with CountedBytes() as counted:
        call(CountedContext(context.classes, context.mean, context.std, context.compile, counted=counted))
    return counted.total


class CountedBytes(TorchDispatchMode):
    """Adds up what operations read and write; a view moves nothing."""

    def __init__(self):
        super().__init__()
        self.total, self.paused = 0, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if not self.paused:
            self.add([args, kwargs], found, in_place=func._schema.is_mutable)
        return found

    def add(self, given: object, found: object, *, in_place: bool = False) -> None:
        """One operation, by its operands and results."""
        operands, results = _tensors(given), _tensors(found)
        places = {each.untyped_storage().data_ptr() for each in operands}
        if in_place or any(each.untyped_storage().data_ptr() not in places for each in results):
            self.total += sum(map(_bytes_of, operands + results))


@dataclass(frozen=True)
class CountedContext(Context):
    """A context whose chains are counted by their ends alone where ``compile`` is set, and run eagerly."""

    counted: CountedBytes | None = None

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """See ``Context``."""
        assert self.counted is not None
        self.counted.paused = self.compile
        found = function(*arguments)
        self.counted.paused = False
        if self.compile:
            self.counted.add(arguments, found)
        return found


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes_of(tensor: Tensor) -> int:
    """Of its elements, one that is repeated by its strides counting once."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def _cpu_seconds() -> float:
    """Of this process and of the compilers that it started."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)

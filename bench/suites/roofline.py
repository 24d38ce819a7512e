"""`unstill bench roofline`: every stage of the pipeline against the machine's limits, and which one is the bottleneck.

    limit (clips/s) = what the machine can do in a second / what one clip asks of it

What a clip asks is counted: bytes of the GOPs it touches, frames decoded, bytes moved, floating point operations
(torch's own formulas, see trainer/monitoring/flops.py). What the machine can do is measured by plain operations in the
same run (ceilings.py), what each stage delivers by the code that trains (stages.py).
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from tyro.conf import arg

from ...pipeline.loading.cpu_threads import leave_a_core_for_decoding
from ...pipeline.options import check_options, more_than
from ...pipeline.shards.index import SampleIndex
from ...trainer.config import TrainConfig
from ...trainer.distributed import process_group
from ..harness import ceilings
from ..harness.bottleneck import Stage, verdict
from ..harness.ceilings import Ceiling
from ..harness.failures import out_of_memory_goes_to
from ..harness.planned_seconds import START_SECONDS, VIDEOS_SECONDS
from ..harness.record import ResultFile
from ..harness.row import Row, number
from ..harness.section import Chart, Section
from ..harness.stages import RunStages
from ..harness.workload import Workload, clip_name, compile_seconds, method_name

_CHARTS = {
    "stages": Chart(
        title="Each stage against what the machine allows",
        column="of_limit_percent",
        unit="percent of the limit",
        reference=(100.0, "limit"),
    )
}
SECTIONS = {
    "roofline": Section(
        title="What limits this machine",
        text="Each stage against the ceiling that was measured for it.",
        order=90,
        picture="training",
        charts=_CHARTS,
    ),
    "roofline_on_cpu": Section(
        title="What limits the processor of a GPU machine",
        text="Each stage against the ceiling that was measured for it.",
        order=91,
        picture="training",
        charts=_CHARTS,
    ),
}
CACHE_SHARE = 0.7  # of the memory may hold files; a larger dataset comes from the disk in every epoch


@dataclass(frozen=True, kw_only=True)
class RooflineBench:
    """Measure this machine's limits, and what holds up a recipe on a dataset."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    workload: Annotated[Workload, arg(name="")] = field(default_factory=Workload)
    """What would be trained."""
    needed: float | None = None
    """Clips per second that are wanted; by default as many as the step alone can take."""
    seconds: float = 1.5
    """Duration of each measurement; the step is measured for at least three of its periods."""

    def __post_init__(self):
        check_options(self, seconds=more_than(0), needed=more_than(0))


def run(config: RooflineBench) -> Path:
    """Measure, print the table and the verdict, write the result file and return its path."""
    workload, notes = config.workload, list[str](_NOTES)
    with tempfile.TemporaryDirectory() as temporary:
        recipe = workload.train_config(Path(temporary))
        cached = fits_page_cache(recipe.data)
        notes.append(_cache_note(cached))
        if recipe.device == "cpu":
            notes.append("cores: what is left when the loader and the step share this machine's cores, as in training.")
        forced = recipe.device == "cpu" and torch.cuda.is_available()
        results = ResultFile("roofline_on_cpu" if forced else "roofline", out=config.out, notes=notes)
        facts = {"recipe": workload.recipe_name(), "model": recipe.model.name, "method": method_name(recipe)}
        facts |= {"clip": clip_name(recipe), "batch": recipe.batch_size}
        stages: list[Stage] = []
        for found in measure(recipe, config.seconds):
            if isinstance(found, Ceiling):
                results.add(ceiling_row(found))
            else:
                stages.append(found)
                results.add(stage_row(found, None, facts))  # what is needed is known when the step is measured
    # a dataset in memory leaves the disk alone, and on a CPU nothing is copied
    idle = [name for name, is_idle in (("disk", cached), ("copy", recipe.device == "cpu")) if is_idle]
    counted = [stage for stage in stages if stage.name not in idle]
    # a step that is out of memory needs nothing: the other stages are then compared with the slowest of them
    least = min(stage.delivered for stage in counted if stage.delivered is not None)
    needed = config.needed or next(stage.delivered for stage in stages if stage.name == "step") or least
    results.replace(len(results.rows) - len(stages), *(stage_row(stage, needed, facts) for stage in stages))
    sentence = verdict(counted, needed)
    title = ", ".join(f"{name} {value}" for name, value in facts.items())
    results.show(title, _SHOWN)
    print(sentence)
    return results.finish(summary=sentence)


_NOTES = (
    "delivered: the stage alone, fed from memory. limit: the ceiling over what a clip asks for. Decoding may pass it a "
    "little: frames that are decoded on the way to others are not converted. needed: clips/s that the step alone can "
    "take, or --needed.",
    "together: all stages before the step at once, as the loader runs them, without training.",
)


_SHOWN = ("in_words", "of_needed_percent", "limit_clips_per_s", "of_limit_percent", "arithmetic", "skipped")


def measure(recipe: TrainConfig, seconds: float) -> Iterator[Ceiling | Stage]:
    """The machine's limits, then the stages in the order of the data, each as soon as it is measured.

    Args:
        recipe: what would be trained.
        seconds: how long each measurement takes.
    """
    with process_group(recipe.device) as ranks, leave_a_core_for_decoding(recipe.device):
        device = ranks.device
        with closing(RunStages(recipe, ranks, seconds)) as stages:
            limits: dict[str, Ceiling] = {}
            for name, measured in (
                ("cache", lambda: ceilings.cached_reading(stages.shards, stages.read_threads, seconds)),
                ("disk", lambda: ceilings.disk_reading(stages.shards, stages.read_threads, seconds)),
                ("copy", lambda: ceilings.host_to_device(device, seconds)),
                ("memory", lambda: ceilings.device_copy(device, seconds)),
                ("products", lambda: ceilings.matrix_products(device, recipe.step.precision, seconds)),
                ("decoder", lambda: ceilings.decoding(stages.videos(), device, stages.decode_threads, seconds)),
            ):
                limits[name] = measured()
                yield limits[name]
            if device.type == "cuda":
                torch.cuda.empty_cache()  # the decoder has memory of its own
            yield stages.read(limits["cache"])
            yield stages.disk(limits["disk"])
            yield stages.decode(limits["decoder"])
            yield stages.copy(limits["copy"])
            yield stages.clip_prep(limits["memory"])
            yield stages.together()
            step: list[Stage] = []
            with out_of_memory_goes_to(lambda why: step.append(Stage(name="step", delivered=None, how=why))):
                step.append(stages.step(limits["products"]))
            yield step[0]
            if device.type == "cpu" and step[0].delivered is not None:
                yield stages.cores()


def planned(config: RooflineBench) -> float:
    """Seconds that a GPU machine should need at most."""
    recipe = config.workload.train_config(Path("planned"), with_data=False)
    return START_SECONDS + VIDEOS_SECONDS + 13 * (config.seconds + 1.5) + compile_seconds(recipe)


def fits_page_cache(data: Path) -> bool:
    """Whether a dataset, read once, stays in memory."""
    size = sum((Path(data) / name).stat().st_size for name in SampleIndex.load(data).shard_names)
    return size <= CACHE_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def ceiling_row(ceiling: Ceiling) -> Row:
    """A limit of the machine."""
    facts, title, unit = {"ceiling": ceiling.name}, f"limit: {ceiling.name}", f"{ceiling.unit}/s"
    if ceiling.rate is None:
        return Row(title=title, unit=unit, facts=facts | {"skipped": ceiling.how})
    facts |= {"in_words": amount(ceiling.rate, ceiling.unit) + "/s", "how": ceiling.how}
    return Row(title=title, value=ceiling.rate, unit=unit, better="higher", role="limit", facts=facts)


def stage_row(stage: Stage, needed: float | None, run: Mapping[str, object]) -> Row:
    """A stage: clips/s, what is needed, what the machine allows.

    Args:
        stage: as measured.
        needed: clips/s; None while it is not known.
        run: recipe, model, ...
    """
    facts = {**run, "stage": stage.name} | ({} if needed is None else {"needed_clips_per_s": needed})
    said: dict[str, Any] = {"title": f"stage: {stage.name}", "unit": "clips/s"}
    if stage.delivered is None:
        return Row(**said, facts=facts | {"skipped": stage.how})
    if needed is not None:
        facts["of_needed_percent"] = 100 * stage.delivered / needed
    if stage.limit is not None and stage.ceiling and stage.work:
        arithmetic = f"{amount(stage.ceiling, stage.unit)}/s / {amount(stage.work, stage.unit)}"
        facts |= {
            "limit_clips_per_s": stage.limit,
            "of_limit_percent": 100 * stage.rate / stage.limit,
            "per_clip": stage.work,
            "per_clip_unit": stage.unit,
            "arithmetic": arithmetic,
        }
        said |= {
            "figure": "stages",
            "label": f"{stage.name}: {number(stage.delivered)} of {number(stage.limit)} clips/s",
            "detail": arithmetic if needed is None else f"{arithmetic}; needed: {number(needed)} clips/s",
        }
    return Row(**said, value=stage.delivered, better="higher", facts=facts | {"how": stage.how})


def amount(value: float, unit: str) -> str:
    """A number of bytes, FLOP or frames with three digits and a prefix: ``612 kB``, ``1.54 TFLOP``, ``41.3 frames``."""
    if unit not in ("bytes", "FLOP"):
        return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    short = "B" if unit == "bytes" else unit
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{short}"
    return f"{value:.3g} {short}"


def _cache_note(cached: bool) -> str:
    share = f"{100 * CACHE_SHARE:.0f} % of the memory"
    if cached:
        return f"The dataset is smaller than {share}: after the first epoch it comes from the page cache, not the disk."
    return f"The dataset is larger than {share}: every epoch reads it from the disk."

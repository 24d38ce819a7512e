"""`unstill bench train`: training end to end, with the real loader and with an ideal one, in turns.

Every number comes from `trainer.train.train` itself: the loop that trains, its step and its metrics. Only the loader is
ours: it delivers a block of steps through the real ``ClipLoader`` and then one from replayed batches (``--replay``),
several times, so that whatever else the machine does disturbs both alike. The first part of a block is not counted.

    data wait = 1 - clips/s of the real loader / clips/s of the ideal one
"""

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from tyro.conf import arg

from ...pipeline.loading.clips import Clips, LoaderStats
from ...pipeline.loading.cpu_threads import loader_threads
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.options import at_least, check_options
from ...pipeline.shards.dataset_info import DatasetInfo
from ...trainer.build import open_loader
from ...trainer.config import TrainConfig
from ...trainer.distributed import Ranks
from ...trainer.methods import Baseline
from ...trainer.monitoring.config import LogConfig
from ...trainer.train import train
from ..harness.failures import out_of_memory_goes_to
from ..harness.planned_seconds import START_SECONDS, VIDEOS_SECONDS
from ..harness.record import ResultFile, quantiles
from ..harness.row import Row, finite
from ..harness.section import Chart, Section
from ..harness.workload import Workload, clip_name, compile_seconds, method_name

LOADERS = ("real", "ideal")
STEP_SECONDS = {"swin3d_t": 0.4, "r3d_18": 0.15}  # guesses for a GPU of the H100's class, to plan by

_CHARTS = {
    "rate": Chart(
        title="Training end to end",
        reading="The same run with the real loader and with an ideal one, in turns: what lies between is waiting for "
        "data.",
    )
}
SECTIONS = {
    "train": Section(
        title="Training",
        text="Complete runs: how fast, and how long they wait for data.",
        order=80,
        picture="training",
        charts=_CHARTS,
    ),
    "train_on_cpu": Section(
        title="Training on the processor of a GPU machine",
        text="Where the GPU's video decoders cannot be used.",
        order=81,
        picture="training",
        charts=_CHARTS,
    ),
}


@dataclass(frozen=True, kw_only=True)
class TrainBench:
    """Train a recipe end to end, with the real loader and with an ideal one."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    workload: Annotated[Workload, arg(name="")] = field(default_factory=Workload)
    """What is trained."""
    baseline: bool = True
    """Also train plain cross entropy on the same clips."""
    rounds: int = 2
    """Turns of each loader."""
    windows: int = 2
    """Measurements in a turn, each of `steps` steps."""
    steps: int = 8
    """Steps of a measurement; more where the loader prepares more batches ahead, for those must not be counted."""
    replay: int = 4
    """Batches of the ideal loader."""

    def __post_init__(self):
        least = at_least(1)
        check_options(self, rounds=least, windows=least, steps=least, replay=least)


def run(config: TrainBench) -> Path:
    """Train, print the table, write the result file and return its path."""
    notes = list[str](_NOTES)
    workload = config.workload.without_nvdec(notes)
    forced = workload.resolved_device() == "cpu" and torch.cuda.is_available()
    # the file's name ends in the machine's device
    results = ResultFile("train_on_cpu" if forced else "train", out=config.out, notes=notes)
    with tempfile.TemporaryDirectory() as temporary:
        recipe = workload.train_config(Path(temporary))
        for number, each in enumerate(_runs(config, recipe)):
            each, name = replace(each, out=Path(temporary) / f"run{number}"), workload.recipe_name()
            facts = run_facts(each, name) | {"loader": "real"}
            with out_of_memory_goes_to(lambda why, facts=facts: results.add(loader_row(facts | {"error": why}))):
                measure(config, each, name, results)
    results.show(f"training, {recipe.device}")
    return results.finish()


def _runs(config: TrainBench, recipe: TrainConfig) -> list[TrainConfig]:
    """The recipe, and with ``baseline`` cross entropy where it is something else."""
    plain = recipe.augmentation is None and isinstance(recipe.method, Baseline)
    return [recipe] + ([replace(recipe, method=Baseline(), augmentation=None)] if config.baseline and not plain else [])


_NOTES = (
    "real: shards through the loader. ideal: the same run on a few batches that were decoded before and stay on the "
    "device (`unstill train --replay`). Both take turns in one training run; the value is the median over the "
    "windows that the loop logged, step_ms_p20/p50/p80 are over single steps, from one batch in hand to the next.",
    "data_wait_percent: 100 x (1 - real / ideal clips/s). loop_wait_percent: the share of the time that the training "
    "loop itself says it waited for the loader (`data_wait` in metrics.jsonl); on a GPU the loop runs ahead of the "
    "device and may wait without holding it up; on a CPU decoding takes cores from the step, which is no waiting.",
)


@dataclass(frozen=True)
class Turns:
    """Which step belongs to which loader and window.

    Attributes:
        rounds: turns of each loader.
        windows: counted windows in a turn; one more comes before them, uncounted.
        steps: steps in a window.
    """

    rounds: int
    windows: int
    steps: int

    @classmethod
    def of(cls, config: TrainBench, run: TrainConfig) -> "Turns":
        """Windows that hold every kind of step equally often, and outlast what is prepared ahead."""
        pipelines = loader_threads(run.loader, run.device, run.batch_size).pipelines
        ahead = run.loader.ready + run.loader.depth * pipelines + 2
        period = getattr(run.method, "gp_every", 1)
        steps = -(-max(config.steps, ahead) // period) * period
        return cls(config.rounds, config.windows, steps)

    @property
    def block(self) -> int:
        """Steps in a turn."""
        return (1 + self.windows) * self.steps

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.rounds * len(LOADERS) * self.block

    def loader(self, step: int) -> str:
        """Which of ``LOADERS`` a step (counted from 0) belongs to."""
        return LOADERS[step // self.block % len(LOADERS)]

    def counts(self, step: int) -> bool:
        """Whether a step (counted from 0) is measured."""
        return step % self.block >= self.steps

    def timed(self, step: int) -> bool:
        """Whether the time from this step's batch to the next one's is measured; the last of a turn ends elsewhere."""
        return self.counts(step) and (step + 1) % self.block != 0


class AlternatingLoader:
    """A ``make_loader`` for ``train``: the real loader and the ideal one in turns.

    A real loader is opened for each turn and closed after it, so that nothing is decoded during the ideal one's turn.

    Args:
        turns: when which.
        after_turn: called when all steps of a turn but the run's last are done.
    """

    def __init__(self, turns: Turns, after_turn: Callable[[], None] = lambda: None):
        self._turns, self._after_turn = turns, after_turn
        self._marks: list[Any] = []  # all seconds, or all CUDA events
        self.stats = LoaderStats()

    @contextmanager
    def __call__(self, config: TrainConfig, ranks: Ranks, start_step: int, steps: int) -> Iterator[Iterator[Clips]]:
        """As ``open_loader``; ``config`` replays, so that everything the run writes says that it is a measurement."""
        with open_loader(config, ranks, start_step, steps) as ideal:
            yield self._batches(ideal, replace(config, replay=0), ranks)

    def milliseconds(self) -> list[float]:
        """From each batch in hand to the next, one fewer than steps; on a GPU by its own clock."""
        if self._marks and isinstance(self._marks[0], torch.cuda.Event):
            torch.cuda.synchronize()
            return [a.elapsed_time(b) for a, b in itertools.pairwise(self._marks)]
        return [1e3 * (b - a) for a, b in itertools.pairwise(self._marks)]

    def _batches(self, ideal: ClipLoader, config: TrainConfig, ranks: Ranks) -> Iterator[Clips]:
        turns, gpu = self._turns, ranks.device.type == "cuda"
        for begin in range(0, turns.total, turns.block):
            if begin:
                self._after_turn()
            if turns.loader(begin) == "ideal":
                for _ in range(turns.block):
                    clips = next(ideal)
                    self._mark(gpu)
                    yield clips
                continue
            # a few steps more than are taken: the last ones must find the loader as busy as the first
            with open_loader(config, ranks, begin, turns.block + turns.steps) as real:
                for _ in range(turns.block):
                    clips = next(real)
                    self._mark(gpu)
                    yield clips
                if gpu:
                    torch.cuda.synchronize()  # nothing reads the decoder's memory when it goes
                self.stats = replace(real.stats)

    def _mark(self, gpu: bool) -> None:
        if gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()  # on the training stream, which waits for the batch: it happens when the batch is there
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())


def measure(config: TrainBench, recipe: TrainConfig, name: str, results: ResultFile) -> None:
    """Train once; a row for each loader, written after every turn with what there is by then.

    Args:
        config: how much is measured.
        recipe: the run, with an empty folder as ``out``.
        name: of the recipe.
        results: where the rows go.
    """
    turns, start = Turns.of(config, recipe), len(results.rows)
    samples = DatasetInfo.read(recipe.data).samples
    measured = replace(
        recipe,
        replay=config.replay,
        schedule=replace(recipe.schedule, warmup_epochs=None),  # of a run that long
        epochs=recipe.epochs_at(1, samples) * (turns.total + 0.5),  # half a step: rounding must not lose the last one
        log=LogConfig(every=turns.steps),
        stop_after=None,
    )

    def write() -> None:
        logged = [json.loads(line) for line in (recipe.out / "metrics.jsonl").read_text().splitlines()]
        rows = summary(turns, logged, loader.milliseconds())
        for row in rows[:1]:
            row["bytes_per_clip"] = round(loader.stats.bytes_per_clip)
            row["decoded_per_delivered"] = loader.stats.decoded_per_delivered
        results.replace(start, *(loader_row(run_facts(recipe, name) | row) for row in rows))

    loader = AlternatingLoader(turns, write)
    train(measured, make_loader=loader)
    write()


def run_facts(recipe: TrainConfig, name: str) -> dict[str, Any]:
    """What is trained."""
    facts = {"recipe": name, "model": recipe.model.name, "method": method_name(recipe), "clip": clip_name(recipe)}
    return {**facts, "batch": recipe.batch_size, "device": recipe.device}


def planned(config: TrainBench) -> float:
    """Seconds that a GPU machine should need at most."""
    recipe = config.workload.train_config(Path("planned"), with_data=False)
    seconds = START_SECONDS + VIDEOS_SECONDS
    for run in _runs(config, recipe):
        seconds += compile_seconds(run) + Turns.of(config, run).total * STEP_SECONDS.get(run.model.name, 0.5)
    return seconds


# SPDL's docs, autoresearch_example_v2: 1,368 clips/s on 8 H100 together, bf16, the first half second of every video;
# ours start at random
PUBLISHED: dict[tuple[str, ...], float] = {("r3d_18", "cross entropy", "16x2x112", "cuda"): 171.0}


def loader_row(facts: Mapping[str, Any]) -> Row:
    """The row of one loader; ``facts``: the run, and a row of ``summary``."""
    real, wait = facts["loader"] == "real", facts.get("data_wait_percent")
    published = PUBLISHED.get((facts["model"], facts["method"], facts["clip"], facts.get("device", "")))
    run_name = f"{facts['method']}, {facts['model']}, {facts['clip']}, batch {facts['batch']}"
    return Row(
        title=f"{facts['loader']} loader, {run_name}",
        value=facts.get("clips_per_s"),
        unit="clips/s",
        better="higher",
        at_least=published if real else None,
        figure="rate",
        label="shards through the loader" if real else "batches that are there already",
        group=run_name,
        role="ours" if real else "limit",
        detail=f"data wait {max(wait, 0.0):.1f} %" if finite(wait) else "",
        facts={name: value for name, value in facts.items() if name != "clips_per_s"},
    )


def summary(turns: Turns, logged: Sequence[Mapping[str, Any]], milliseconds: Sequence[float]) -> list[dict]:
    """A row for each loader that has been measured.

    Args:
        turns: which steps belong to which.
        logged: the lines of metrics.jsonl, one for each window.
        milliseconds: of each step but the last.
    """
    rows = []
    for loader in LOADERS:
        # a line is written after the last step of its window
        windows = [
            line
            for line in logged
            if "clips_per_s" in line and turns.loader(line["step"] - 1) == loader and turns.counts(line["step"] - 1)
        ]
        if not windows:
            continue
        steps = [ms for step, ms in enumerate(milliseconds) if turns.loader(step) == loader and turns.timed(step)]
        row = {
            "loader": loader,
            "clips_per_s": float(np.median([line["clips_per_s"] for line in windows])),
            "loop_wait_percent": 100 * float(np.median([line["data_wait"] for line in windows])),
            **{f"step_ms_{name}": value for name, value in quantiles(steps).items()},
            "steps": len(steps),
        }
        if all("mfu" in line for line in windows):
            row["mfu"] = float(np.median([line["mfu"] for line in windows]))
        rows.append(row)
    if len(rows) == len(LOADERS):
        real, ideal = rows
        real["data_wait_percent"] = 100 * (1 - real["clips_per_s"] / ideal["clips_per_s"])
    return rows

"""`unstill bench batch_size`: whether a run ends alike at other batch sizes.

Cross entropy and ALBAR on the procedural dataset, with 8, 64 and 256 clips in a step. With k times the recipe's 32:

    k below 1   the learning rate times sqrt(k), the recipe's epochs
    k above 1   cross entropy: the recipe's rate, sqrt(k) times its epochs
                ALBAR: sqrt(k) times the rate, but at most twice; a warm-up of 50 steps or more; k times the epochs,
                which is the recipe's steps; the penalty every gp_every / sqrt(k) steps

The recipes are as short as they can be: 12 epochs are 384 steps of 32 clips, and would be 48 of 256. ALBAR needs steps,
whatever the batch: it begins where all classes are alike, which its static terms reward, learns the static clips on the
way out, and has to unlearn them. Each run is trained once: a repeated command goes on where the last one stopped.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.errors import InputError
from ...pipeline.loading.device import Device, resolve_device
from ...pipeline.progress import Progress
from ...trainer.config import TrainConfig
from ...trainer.methods import Albar
from ..harness.procedural.measures import COLUMNS
from ..harness.procedural.methods import METHODS, TITLES
from ..harness.procedural.runs import ProceduralRuns
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Chart, Section

STUDENT_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # 97.5 % quantile at 1, 2, ... degrees of freedom
WARM_STEPS = 50  # of ALBAR with more clips than the recipe
MOST_APART = 1.0  # points of the measure below, between the means of the batch sizes
# what the batch sizes are compared by: first what each method is trained for
COMPARED_BY = {"baseline": ("iid",), "albar": ("contrasted", "iid")}
JUDGED_BY = {method: columns[0] for method, columns in COMPARED_BY.items()}

SECTIONS = {
    "batch_size": Section(
        title="Batch size",
        text="8 to 256 clips in a step, learning rate and epochs scaled by one rule.",
        order=82,
        charts={
            "baseline": Chart(
                title="Cross entropy: accuracy on ordinary videos",
                reading="Means over seeds of videos, weights and order.",
                main=False,
                whiskers="one standard deviation to either side",
            ),
            "albar": Chart(
                title="ALBAR: contrasted accuracy",
                reading="Means over seeds of videos, weights and order.",
                main=False,
                whiskers="one standard deviation to either side",
            ),
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class BatchSizeBench:
    """Train cross entropy and ALBAR with other numbers of clips in a step."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    batches: tuple[int, ...] = (8, 64, 256)
    """Clips in a step."""
    methods: tuple[str, ...] = ("baseline", "albar")
    """Of baseline and albar."""
    seeds: tuple[int, ...] = (53, 54, 55, 56, 57, 58)
    """Of the videos, the weights and the order; the rule was chosen on 40 and 41."""
    runs: Path = Path("runs/bench_demo")
    """Folder for each seed's videos, shards and models, the one of `unstill bench bias`."""
    train: int = 1024
    """Number of training videos."""
    test: int = 512
    """Number of videos in each test set."""
    device: Device = "auto"
    """Where to train. auto: cuda where there is one."""

    def __post_init__(self):
        if unknown := [name for name in self.methods if name not in COMPARED_BY]:
            raise InputError(f"methods: {unknown[0]!r} is not one of {', '.join(COMPARED_BY)}")
        if unfit := [batch for batch in self.batches if batch < 1]:
            raise InputError(f"batches: {unfit[0]} clips in a step, expected at least 1")


def run(config: BatchSizeBench) -> Path:
    """Train and test what is not done yet, print the table, write the result file and return its path."""
    device = resolve_device(config.device)
    runs = ProceduralRuns(folder=config.runs, train=config.train, test=config.test, device=device)
    variants, found = recipes(config), []
    results = ResultFile("batch_size", out=config.out, notes=_NOTES, file_name="batch_size.json")
    with Progress("batch sizes", len(config.seeds) * len(variants), "runs") as progress:
        for seed in config.seeds:
            runs.make_data(seed)
            for about, recipe in variants:
                measured = runs.measures(f"{about['method']}_batch_{about['batch']}", recipe, seed)
                found.append({**about, "seed": seed, **measured})
                results.add(run_row(found[-1]))
                progress.advance(note=f"{about['method']} {about['batch']}")
    results.add(*(mean_row(same) for same in by_setting(found)), *spread_rows(found))
    results.show("Batch sizes", ["n", *COLUMNS, "train_cpu_seconds"])
    return results.finish()


_NOTES = (
    "With k times the recipe's clips: below 1 the rate times sqrt(k). Above 1 cross entropy has sqrt(k) times the "
    "epochs, ALBAR k times, sqrt(k) times the rate, but at most twice, and a warm-up of 50 steps. "
    "Percent; means and sample standard deviations over seeds of videos, weights and order.",
    "512 test videos: the standard error of an accuracy of 95 % is 1.0 point.",
)


def recipes(config: BatchSizeBench) -> list[tuple[dict[str, Any], TrainConfig]]:
    """What is trained on each seed: method, batch and what follows from it, and the recipe."""
    found = []
    for method, batch in itertools.product(config.methods, config.batches):
        recipe = at_batch(METHODS[method](), batch, config.train)
        about = {"epochs": round(recipe.epochs, 2), "lr": float(f"{recipe.optimiser.lr:.3g}")}
        found.append(({"method": method, "batch": batch, **about}, recipe))
    return found


def at_batch(recipe: TrainConfig, batch: int, samples: int) -> TrainConfig:
    """The recipe with so many clips in a step, for a data set of so many videos."""
    factor = batch / recipe.batch_size
    log = replace(recipe.log, every=max(1, round(recipe.log.every / factor)))
    scaled = replace(recipe.optimiser, lr=recipe.optimiser.lr * min(2.0, math.sqrt(factor)))
    same = replace(recipe, batch_size=batch, log=log)
    if factor <= 1:
        return replace(same, optimiser=scaled)
    method = recipe.method
    if not isinstance(method, Albar):
        return replace(same, epochs=recipe.epochs * math.sqrt(factor))
    longer = replace(same, epochs=recipe.epochs * factor)
    # as many penalties in the run, and as strong on average
    method = replace(method, gp_every=math.ceil(method.gp_every / math.sqrt(factor)))
    warm = WARM_STEPS * batch / (samples * longer.epochs)
    schedule = replace(recipe.schedule, warmup=max(recipe.schedule.warmup, round(warm, 3)))
    return replace(longer, method=method, optimiser=scaled, schedule=schedule)


def run_row(facts: Mapping[str, Any]) -> Row:
    """The row of one run."""
    column = JUDGED_BY[facts["method"]]
    title = f"{TITLES[facts['method']]}, {facts['batch']} clips in a step, seed {facts['seed']}: {column}"
    return Row(title=title, value=facts[column], unit="percent", better="higher", facts=facts)


def by_setting(found: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The runs of each method and batch, in order of appearance."""
    same: dict[tuple, list[Mapping[str, Any]]] = {}
    for each in found:
        same.setdefault((each["method"], each["batch"]), []).append(each)
    return list(same.values())


def mean_row(runs: Sequence[Mapping[str, Any]]) -> Row:
    """Mean of the runs of one method and batch, with the standard deviation where there are several."""
    method, batch = runs[0]["method"], runs[0]["batch"]
    facts: dict[str, Any] = {name: runs[0][name] for name in ("method", "batch", "epochs", "lr")} | {"n": len(runs)}
    for column in (*COLUMNS, "train_cpu_seconds"):
        values = np.array([each[column] for each in runs], np.float64)
        facts[column] = round(float(values.mean()), 3)
        if len(runs) > 1:
            facts[f"{column}_sd"] = round(float(values.std(ddof=1)), 3)
    column = JUDGED_BY[method]
    mean, sd = facts[column], facts.get(f"{column}_sd")
    ends = {"p20": mean - sd, "p80": mean + sd} if sd else {}
    return Row(
        title=f"{TITLES[method]}, {batch} clips in a step: {column}, mean of {len(runs)}",
        value=mean,
        **ends,
        unit="percent",
        better="higher",
        figure=method,
        label=f"{batch} clips",
        facts=facts,
    )


def spread_rows(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """How far the means of the batch sizes lie apart, by method and measure: each pair, the largest with the target.

    Pairs are compared seed by seed: both saw the same videos. ``low`` and ``high`` of a difference are its 95 %
    interval over the seeds (Student's t), missing with a single seed.
    """
    rows = []
    for method in dict.fromkeys(each["method"] for each in found):
        for column in COMPARED_BY[method]:
            rows += _column_spread([each for each in found if each["method"] == method], column)
    return rows


def _column_spread(found: Sequence[Mapping[str, Any]], column: str) -> list[Row]:
    method, values = found[0]["method"], dict[int, dict[int, float]]()
    for each in found:
        values.setdefault(each["batch"], {})[each["seed"]] = each[column]
    pairs = [
        _difference(method, column, (one, other), [values[other][seed] - values[one][seed] for seed in values[one]])
        for one, other in itertools.combinations(values, 2)
        if values[one].keys() == values[other].keys()
    ]
    if not pairs:
        return []
    most = max(pairs, key=lambda row: abs(row.value or 0))
    title = f"{TITLES[method]}, {min(values)} to {max(values)} clips in a step: largest difference of {column}"
    return [*pairs, replace(most, title=title, value=abs(most.value or 0), at_most=MOST_APART, better="")]


def _difference(method: str, column: str, batches: tuple[int, int], differences: Sequence[float]) -> Row:
    one, other = batches
    mean, n = float(np.mean(differences)), len(differences)
    facts: dict[str, Any] = {"method": method, "measure": column, "between": f"{one} and {other}", "n": n}
    if n > 1:
        around = STUDENT_95[min(n - 1, len(STUDENT_95)) - 1] * float(np.std(differences, ddof=1)) / math.sqrt(n)
        facts |= {"low": round(mean - around, 3), "high": round(mean + around, 3)}
    title = f"{TITLES[method]}, {other} clips in a step against {one}: {column}"
    return Row(title=title, value=mean, unit="points", facts=facts)

"""`unstill bench demo`: the demonstration for several seeds, and whether it meets its targets.

Writes ``bench/results/demo.json``: one row a seed and model, the targets, and the seconds of every stage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from ...pipeline.errors import InputError
from ...trainer.demo.run import demo
from ...trainer.demo.settings import COLUMNS, DemoConfig
from ..harness.procedural.measures import GUESSING, MEASURES
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Chart, Section

SECTIONS = {
    "demo": Section(
        title="The demonstration",
        text="One network trained twice: does it name what moves, or what stands in the picture?",
        order=8,
        picture="models",
        charts={
            "models": Chart(
                title="What the demonstration's models read",
                reading="Means over seeds, on videos where scene and appearance give the class away in 95 % of the "
                "training set.",
                whiskers="lowest to highest seed",
                reference=GUESSING,
            )
        },
    )
}
MODELS = {"baseline": "cross entropy", "albar": "ALBAR"}


@dataclass(frozen=True, kw_only=True)
class DemoBench:
    """Run the demonstration for several seeds and compare it with its targets."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the videos, the weights and the order."""
    runs: Path = Path("runs/bench_demo")
    """Folder for each seed's videos, shards and models."""


def run(config: DemoBench) -> Path:
    """Run every seed, print the table, write the result file and return its path.

    Raises:
        InputError: a seed misses a target; the result file is written all the same.
    """
    results = ResultFile("demo", out=config.out, file_name="demo.json")
    found: dict[int, dict[str, dict[str, float]]] = {}
    for seed in config.seeds:
        scored = demo(replace(DemoConfig(), seed=seed, out=config.runs / f"seed{seed}"))
        found[seed] = {model: {column: scored[model][column] for column in COLUMNS} for model in MODELS}
        results.note(f"seed {seed}: seconds by stage {scored['seconds']}")
        results.add(*seed_rows(seed, found[seed]), *target_rows(seed, found[seed]))
    results.add(*mean_rows(list(found.values())))
    results.show("The demonstration, percent")
    path = results.finish()
    missed = [f"{row.title}: {row.value:.4g}" for row in results.rows if row.met is False]
    if missed:
        raise InputError(f"targets missed: {'; '.join(missed)}; the numbers are in {path}")
    return path


def seed_rows(seed: int, found: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Every measure of both models on one seed, percent."""
    return [
        Row(
            title=f"{name}, seed {seed}: contrasted accuracy",
            value=found[model]["contrasted"],
            unit="percent",
            better="higher",
            facts={"seed": seed, "model": model, **found[model]},
        )
        for model, name in MODELS.items()
    ]


def target_rows(seed: int, found: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """What one seed must show: ALBAR keeps the accuracy, and reads motion where the baseline reads appearance."""
    baseline, albar = found["baseline"], found["albar"]
    targets: tuple[tuple[str, float, str, dict[str, Any]], ...] = (
        ("ALBAR's IID accuracy less the baseline's", albar["iid"] - baseline["iid"], "points", {"at_least": -2}),
        ("the baseline's contrasted accuracy", baseline["contrasted"], "percent", {"at_most": 20}),
        ("ALBAR's contrasted accuracy", albar["contrasted"], "percent", {"at_least": 75}),
        ("ALBAR's SCUFO", albar["scufo"], "percent", {"at_most": 15}),
        ("ALBAR's SCUBA", albar["scuba"], "percent", {"at_least": 85}),
        ("ALBAR's anti accuracy less the baseline's", albar["anti"] - baseline["anti"], "points", {"at_least": 15}),
    )
    return [
        Row(title=f"{name}, seed {seed}", value=round(value, 2), unit=unit, target=name, facts={"seed": seed}, **bound)
        for name, value, unit, bound in targets
    ]


def mean_rows(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Row]:
    """Mean, lowest and highest seed of each measure and model."""
    rows = []
    for measure, (words, better) in MEASURES.items():
        for model, name in MODELS.items():
            values = [one[model][measure] for one in found]
            ends: dict[str, Any] = {"p20": min(values), "p80": max(values)} if len(values) > 1 else {}
            rows.append(
                Row(
                    title=f"{name}: {words}, mean of {len(values)} seeds",
                    value=mean(values),
                    **ends,
                    unit="percent",
                    better=better,
                    figure="models",
                    label=name,
                    group=f"{words} ({better} is better)",
                    role="ours" if model == "albar" else "peer",
                    facts={"model": model, "measure": measure},
                )
            )
    return rows

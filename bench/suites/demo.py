"""`unstill bench demo`: the whole demonstration for several seeds, and whether it shows what it promises.

Writes ``bench/results/demo.json``: one row a seed and model, the bars, and the seconds of every stage.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from ...pipeline.errors import InputError
from ...trainer.demo.run import demo
from ...trainer.demo.settings import COLUMNS, DemoConfig
from ..harness.record import record, show


@dataclass(frozen=True, kw_only=True)
class DemoBench:
    """Run the demonstration for several seeds and hold it against its bars."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the videos, the weights and the order."""
    runs: Path = Path("runs/bench_demo")
    """Folder for each seed's videos, shards and models."""


def bars(baseline: dict[str, float], albar: dict[str, float]) -> dict[str, bool]:
    """What one seed must show (percent): ALBAR keeps the accuracy, and reads motion where the baseline reads looks."""
    return {
        "ALBAR iid >= baseline iid - 2": albar["iid"] >= baseline["iid"] - 2,
        "baseline contrasted <= 20": baseline["contrasted"] <= 20,
        "ALBAR contrasted >= 75": albar["contrasted"] >= 75,
        "ALBAR scufo <= 15": albar["scufo"] <= 15,
        "ALBAR scuba >= 85": albar["scuba"] >= 85,
        "ALBAR anti >= baseline anti + 15": albar["anti"] >= baseline["anti"] + 15,
    }


def run(config: DemoBench | None = None) -> Path:
    """Run every seed, print the table, write the result file and return its path.

    Raises:
        InputError: a seed misses a bar; the result file is written all the same.
    """
    config = config or DemoBench()
    rows, notes, missed = [], [], []
    for seed in config.seeds:
        results = demo(replace(DemoConfig(), seed=seed, out=config.runs / f"seed{seed}"))
        for model in ("baseline", "albar"):
            rows.append({"seed": seed, "model": model, **{column: results[model][column] for column in COLUMNS}})
        notes.append(f"seed {seed}: seconds by stage {results['seconds']}")
        missed += [f"seed {seed}: {bar}" for bar, met in bars(results["baseline"], results["albar"]).items() if not met]
    notes.append(f"bars missed: {'; '.join(missed) or 'none'}")
    show("The demonstration, percent", rows, notes=notes)
    path = record("demo", rows, out=config.out, notes=notes, file_name="demo.json")
    if missed:
        raise InputError(f"bars missed: {'; '.join(missed)}; the numbers are in {path}")
    return path

"""`unstill bench bias`: every method on the procedural dataset, in the table of the literature, over several seeds.

Writes ``bench/results/bias.json``: a row for each method with mean and sample standard deviation over the seeds, and a
row for each run. Each (method, seed) is trained once: a repeated command goes on where the last one stopped.
``anti`` and ``swap``, columns that only exact masks allow and that no paper reports, say who learned motion.

With ``--tune`` every method, cross entropy and ALBAR included, is trained with each of its three settings instead
(``GRIDS``), on other seeds than the table's. ``bias_tuning.json`` holds the outcome; the recipes take the setting with
the highest ``criterion``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...pipeline.errors import InputError
from ...pipeline.progress import Progress
from ...trainer.config import TrainConfig
from ...trainer.demo.motions.world import CLASSES
from ...trainer.demo.settings import CHANCE
from ...trainer.evaluation.measures import MEASURES as DEFINITIONS
from ..harness.procedural.measures import COLUMNS, GUESSING, MEASURES, criterion, known_columns, label, summary
from ..harness.procedural.methods import GRIDS, METHODS, TITLES, setting_words, with_setting
from ..harness.procedural.runs import ProceduralRuns
from ..harness.record import ResultFile, show
from ..harness.row import Row
from ..harness.section import Chart, Section

HEADS = dict(  # of the table in docs/results.md
    zip(
        COLUMNS,
        ("IID ↑", "SCUBA ↑", "SCUFO ↓", "Confl-FG ↑", "Contrasted ↑", "Least", "Probe ↓", "Anti ↑", "Swap ↑"),
        strict=True,
    )
)

# HMDB51, mean of the backgrounds, as on the poster of ALBAR (arXiv 2502.00156): IID, SCUBA, SCUFO, Confl-FG, contrasted
PUBLISHED_HMDB51 = {
    "baseline": (73.92, 43.93, 20.46, 36.58, 27.84),
    "mixup": (74.58, 43.10, 21.17, 36.62, 26.09),
    "videomix": (73.31, 39.39, 20.44, 32.68, 23.13),
    "sdn": (74.66, 40.02, 20.22, 34.87, 22.88),
    "be": (74.31, 43.56, 19.96, 35.99, 27.84),
    "actor_cutmix": (74.05, 46.79, 22.07, 36.97, 28.12),
    "fame": (73.79, 51.40, 26.92, 39.61, 29.66),
    "stillmix": (74.82, 51.81, 13.39, 47.38, 40.28),
    "albar": (73.20, 53.2, 0.42, 49.84, 53.02),
}


def _charts(title: str, reading: str, measures: Sequence[str], main: Sequence[str]) -> dict[str, Chart]:
    return {
        measure: Chart(
            title=f"{title}: {MEASURES[measure][0]}",
            reading=reading,
            main=measure in main,
            whiskers="one standard deviation to either side",
            column=measure,
            of="methods",
            unit="percent",
            better=MEASURES[measure][1],
            reference=GUESSING if DEFINITIONS[measure].guess(len(CLASSES)) == CHANCE else None,
        )
        for measure in measures
    }


SECTIONS = {
    "bias": Section(
        title="Every method on one dataset",
        text="Accuracy when scene, still frame or appearance no longer give the class away.",
        order=9,
        picture="models",
        charts=_charts(
            "Every method",
            "Means over seeds, every method on the same videos.",
            COLUMNS,
            main=("contrasted", "scufo_probe", "anti"),
        ),
    ),
    "bias_tuning": Section(
        title="Three settings of every method",
        text="The same budget for each, on other seeds than the table's.",
        order=10,
        picture="models",
        charts=_charts(
            "Every method's settings",
            "Means over seeds that the table of all methods does not use.",
            ("iid", "scuba", "scufo_probe"),
            main=(),
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class BiasBench:
    """Train every method on the procedural dataset and measure what still frames, scenes and actors tell it."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Which methods."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the videos, the weights and the order."""
    runs: Path = Path("runs/bench_demo")
    """Folder for each seed's videos, shards and models; `unstill bench demo` makes the same videos and shards."""
    train: int = 1024
    """Number of training videos."""
    test: int = 512
    """Number of videos in each test set."""
    tune: bool = False
    """Instead of the table: train every method with each of its three settings. Give other seeds than the table's."""
    epochs: float | None = None
    """Passes over the training videos; by default the recipes' own."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""

    def __post_init__(self):
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise InputError(f"methods: {unknown[0]!r} is not one of {', '.join(METHODS)}")

    def recipes(self) -> list[tuple[dict[str, Any], TrainConfig]]:
        """What is trained on each seed: what its rows say of it, and its recipe."""
        if not self.tune:
            return [({"method": name}, METHODS[name]()) for name in self.methods]
        return [
            ({"method": name, "setting": setting_words(setting)}, with_setting(METHODS[name](), setting))
            for name in self.methods
            for setting in GRIDS[name]
        ]


def run(config: BiasBench) -> Path:
    """Train and test what is not done yet, print the table, write the result file and return its path."""
    found, variants = [], config.recipes()
    name = "bias_tuning" if config.tune else "bias"
    runs = ProceduralRuns(
        folder=config.runs, train=config.train, test=config.test, epochs=config.epochs, device=config.device
    )
    results = ResultFile(name, out=config.out, notes=_NOTES, file_name=f"{name}.json")
    with Progress("methods", len(config.seeds) * len(variants), "runs") as progress:
        for seed in config.seeds:
            runs.make_data(seed)
            for row, recipe in variants:
                found.append({**row, "seed": seed, **runs.measures(label(row), recipe, seed)})
                progress.advance(note=label(row))
    rows = summary(found)
    show("Bias of every method, percent, mean over seeds", [mean_only(row) for row in rows])
    print(markdown(rows))
    if config.tune:
        best = "; ".join(f"{TITLES[method]}: {setting}" for method, setting in best_settings(rows).items())
        results.note(f"{_BUDGET}. Highest: {best}")
    else:
        results.note(f"settings chosen on other seeds (bias_tuning.json): {_BUDGET}")
        if set(PUBLISHED_HMDB51) <= {row["method"] for row in rows}:
            found_alike = ", ".join(f"{column} {value:.2f}" for column, value in agreement(rows).items())
            results.note(f"rank correlation with the published HMDB51 columns over its nine methods: {found_alike}")
    results.add(*map(mean_row, rows), *map(run_row, found))
    return results.finish()


_NOTES = (
    "mean and sample standard deviation over seeds of videos, weights and order; n seeds in the column n",
    "scenes (sdn, two_streams) and boxes of the actor (actor_cutmix, sdn) are the true ones; StillMix's stills are "
    "chosen by a network that was trained on single frames of the same videos",
)
_BUDGET = (
    "every method has three settings (two values of its main constant, one of them at half the learning rate; cross "
    "entropy has three rates), judged by the mean of IID, SCUBA, Confl-FG and 100 less the SCUFO probe"
)


def mean_row(facts: Mapping[str, Any]) -> Row:
    """The row of a line of ``summary``."""
    setting = facts.get("setting", "")
    ours, title = "albar" in facts["method"], TITLES[facts["method"]]
    tuned: dict[str, Any] = {"label": setting, "group": title} if setting else {"label": title}
    return Row(
        title=f"{title}{', ' if setting else ''}{setting}: contrasted accuracy",
        value=facts["contrasted"],
        unit="percent",
        better="higher",
        figure="methods",
        role="ours" if ours else "peer",
        facts=facts,
        **tuned,
    )


def run_row(facts: Mapping[str, Any]) -> Row:
    """The row of one run."""
    title = f"{label(facts)}, seed {facts['seed']}: contrasted accuracy"
    return Row(title=title, value=facts["contrasted"], unit="percent", better="higher", facts=facts)


def best_settings(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """For each method the setting with the highest mean criterion."""
    methods = dict.fromkeys(row["method"] for row in rows)
    return {m: max((row for row in rows if row["method"] == m), key=criterion)["setting"] for m in methods}


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Spearman's rank correlation of each published column with the measured one, over the methods that both have."""
    measured = {row["method"]: row for row in rows}
    both = [name for name in PUBLISHED_HMDB51 if name in measured]
    found = {}
    for n, column in enumerate(COLUMNS[:5]):
        theirs = np.array([PUBLISHED_HMDB51[name][n] for name in both])
        ours = np.array([measured[name][column] for name in both])
        found[column] = float(np.corrcoef(_ranks(theirs), _ranks(ours))[0, 1])
    return found


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    return np.array([np.sum(values < v) + (np.sum(values == v) - 1) / 2 for v in values])


def mean_only(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that fit a terminal."""
    shown = {name: row[name] for name in ("method", "setting", "n") if name in row}
    return shown | {name: round(row[name], 1) for name in known_columns([row])}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables of docs/results.md: what was measured here, and what was published for HMDB51."""
    known = known_columns(rows)
    titles = [HEADS[name] for name in known]
    lines = [f"| percent, mean ± sd | {' | '.join(titles)} |", "|---" + "|---:" * len(titles) + "|"]
    for row in rows:
        cells = [
            f"{row[column]:.1f}" + (f" ± {row[f'{column}_sd']:.1f}" if f"{column}_sd" in row else "")
            for column in known
        ]
        setting = f", {row['setting']}" if "setting" in row else ""
        lines.append(f"| {TITLES[row['method']]}{setting} | {' | '.join(cells)} |")
    lines += ["", f"| published, HMDB51 | {' | '.join(titles[:5])} |", "|---" + "|---:" * 5 + "|"]
    for method, values in PUBLISHED_HMDB51.items():
        lines.append(f"| {TITLES[method]} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(lines)

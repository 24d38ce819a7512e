"""What is measured of a network that was trained on the procedural dataset, and its mean over the seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....trainer.demo.settings import CHANCE
from ....trainer.evaluation.measures import MEASURES as DEFINITIONS
from ...harness.row import Better

ABOUT = ("method", "setting")  # of a recipe, what is not measured
WORDS = {  # what the report calls the measures
    "iid": "accuracy on ordinary videos",
    "scuba": "SCUBA, the scene exchanged",
    "scufo": "SCUFO, a still frame of it",
    "conflfg": "Confl-FG, a second actor stands still",
    "contrasted": "contrasted",
    "scufo_least": "SCUFO, the label is the least likely class",
    "scufo_probe": "SCUFO, the class read by a linear probe",
    "anti": "anti, scene and actor of other classes",
    "swap": "swap, new scene, another class's actor",
}
MEASURES: dict[str, tuple[str, Better]] = {name: (words, DEFINITIONS[name].better) for name, words in WORDS.items()}
COLUMNS = tuple(MEASURES)
GUESSING = (CHANCE, f"guessing, {CHANCE:g} %")


def criterion(row: Mapping[str, Any]) -> float:
    """What settings are chosen by, percent: a label that is turned upside down on still clips does not raise it."""
    return (row["iid"] + row["scuba"] + row["conflfg"] + 100 - row["scufo_probe"]) / 4


def label(row: Mapping[str, Any]) -> str:
    """What a row's recipe is called in folders and tables: the method, with the setting where several are tried."""
    return "_".join([row["method"], *row.get("setting", "").replace(",", "").split()])


def summary(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a recipe, in order of appearance: n, and mean and sample standard deviation of every measure."""
    rows, same = [], {}
    for run in found:
        same.setdefault(label(run), []).append(run)
    for runs in same.values():
        row: dict[str, Any] = {name: runs[0][name] for name in ABOUT if name in runs[0]}
        row["n"] = len(runs)
        measured = [name for name in runs[0] if name not in (*COLUMNS, *ABOUT, "seed")]
        for column in (*known_columns(runs), *measured):
            values = np.array([run[column] for run in runs], np.float64)
            row[column] = round(float(values.mean()), 6)
            if len(runs) > 1:
                row[f"{column}_sd"] = round(float(values.std(ddof=1)), 6)
        rows.append(row)
    return rows


def known_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that all rows have; files of older versions lack some."""
    return [name for name in COLUMNS if all(name in row for row in rows)]

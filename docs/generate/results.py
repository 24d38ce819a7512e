"""The committed result files, for lookup by file and title."""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Results:
    """``bench/results``: rows by file; everything that is missing ends the program with its name."""

    def __init__(self, folder: Path):
        self._folder = folder

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self._folder / f"{name}.json").exists()

    def file(self, name: str) -> dict[str, Any]:
        """One file, complete."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            sys.exit(f"{path}: no such result file")
        return json.loads(path.read_text())

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a file."""
        return self.file(name)["rows"]

    def row(self, name: str, title: str) -> dict[str, Any]:
        """The row with a title."""
        found = [row for row in self.rows(name) if row["title"] == title]
        if len(found) != 1:
            sys.exit(f"{name}.json: {len(found)} rows are called {title!r}, expected one")
        return found[0]

    def value(self, name: str, title: str) -> float:
        """Its value."""
        return self.row(name, title)["value"]


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """``93.4 ± 1.2``: mean and sample standard deviation; the mean alone of one value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean

"""The numbers that the project promises, as the result files hold them: was the bar reached?"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from ..harness.result_files import Result
from .figures import better_way, finite

# what must hold for an index of so many videos: column -> bar, unit, words
GROWTH_SAMPLES = 1_000_000
GROWTH_BARS = {
    "start_up_s": (2.0, "s", "start-up"),
    "memory_bytes_per_sample": (200, "bytes a video", "memory"),
}


@dataclass(frozen=True)
class Promise:
    """A number that the project promises, and what was found."""

    what: str
    value: float
    unit: str
    sense: Literal["at least", "at most"]
    bar: float
    held: bool
    result: Result


def promises(result: Result) -> list[Promise]:
    """Rows that name their bar, and the bars on growth, which concern one row; of rows that differ in their last words
    only, the worst.
    """
    found = [_on_growth(row, column, result) for row in result.rows for column in GROWTH_BARS]
    found += [_of_row(row, result) for row in result.rows]
    alike: dict[tuple, list[Promise]] = {}
    for promise in found:
        if promise is not None and finite(promise.value) and finite(promise.bar):
            alike.setdefault((promise.what.partition(", ")[0], promise.sense, promise.bar), []).append(promise)
    return [_worst(some) for some in alike.values()]


def _worst(some: list[Promise]) -> Promise:
    worst = (min if some[0].sense == "at least" else max)(some, key=lambda promise: promise.value)
    return replace(worst, what=f"{worst.what} (the worst of {len(some)})") if len(some) > 1 else worst


def _on_growth(row: dict, column: str, result: Result) -> Promise | None:
    if result.name != "growth" or row.get("samples") != GROWTH_SAMPLES or column not in row:
        return None
    bar, unit, words = GROWTH_BARS[column]
    what = f"{words} for {row['samples']:,} videos"
    return Promise(what, row[column], unit, "at most", bar, row[column] <= bar, result)


def _of_row(row: dict, result: Result) -> Promise | None:
    if finite(row.get("at_most")):
        return Promise(
            _name(row), row.get("value"), row.get("unit", ""), "at most", row["at_most"], row["held"], result
        )
    if not finite(row.get("bar")):
        return None
    unit = "times" if "ratio" in row or "times" in row else row.get("unit", "")
    value = next((row[c] for c in ("ratio", "p50", "value", "times") if c in row), math.nan)
    at_most = ("ratio" not in row and better_way(unit) == "lower") or "slowest / fastest" in _name(row)
    held = value <= row["bar"] if at_most else value >= row["bar"]
    return Promise(_name(row), value, unit, "at most" if at_most else "at least", row["bar"], held, result)


def _name(row: dict) -> str:
    return next((v for k, v in row.items() if isinstance(v, str) and k != "unit"), "")

"""Bars, marks and figures of the report, and the rule by which a benchmark that nobody described is drawn.

Rows with ``p50`` (or ``value``) and ``unit`` become bars, one figure a unit, named by the columns in which they differ.
Everything else is in the table of all rows, which every file gets.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..harness.result_files import Result

Role = Literal["ours", "peer", "limit"]


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: what was measured.
        value: where the bar ends.
        low, high: ends of the whisker.
        role: ours, a peer, or a limit that nobody can pass.
        group: heading that it shares with its neighbours.
        detail: a few words more.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    role: Role = "ours"
    group: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Mark:
    """A vertical line: a promise that a bar must reach (``bar``) or a reference (``limit``)."""

    value: float
    label: str
    kind: Literal["bar", "limit"] = "bar"


@dataclass(frozen=True)
class Figure:
    """Bars over one unit.

    Attributes:
        title: what is compared.
        reading: how to read it, and what not to read into it.
        unit: of all values.
        better: higher, lower, or nothing to say.
        bars, marks: what is drawn.
        result: the file that it comes from.
        main: it is in the picture, too, and not only on the page.
        whiskers: what they span.
    """

    title: str
    reading: str
    unit: str
    better: Literal["higher", "lower", ""]
    bars: list[Bar]
    result: Result
    marks: tuple[Mark, ...] = ()
    main: bool = True
    whiskers: str = "20th to 80th percentile"

    @property
    def spread(self) -> bool:
        """Whether any bar has a whisker."""
        return any(bar.low is not None for bar in self.bars)

    @property
    def end(self) -> float:
        """Where the axis ends."""
        ends = [v for bar in self.bars for v in (bar.value, bar.high or 0.0)] + [mark.value for mark in self.marks]
        return max(ends) * 1.02 or 1.0

    def text(self, value: float) -> str:
        """A value with the decimals that the longest bar needs for three digits."""
        longest = max(abs(bar.value) for bar in self.bars)
        if all(float(bar.value).is_integer() for bar in self.bars):
            return f"{value:,.0f}"
        power = math.floor(math.log10(longest)) if longest else 0
        return f"{value:,.{max(0, 2 - power)}f}"


def on_several_devices(figures: Sequence[Figure]) -> set[str]:
    """Titles that figures of more than one device have: there the device belongs to the title."""
    places: dict[str, set[str]] = {}
    for figure in figures:
        places.setdefault(figure.title, set()).add(figure.result.where)
    return {title for title, where in places.items() if len(where) > 1}


def number(value: float) -> str:
    """Three digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def finite(value: object) -> bool:
    """Whether it is a number that can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def better_way(unit: str) -> Literal["higher", "lower", ""]:
    first = unit.split()[0] if unit else ""
    if first in ("s", "ms", "us", "ns", "CPU-s", "CPU-ms", "seconds", "MB", "MiB", "GB", "GiB", "kB", "bytes"):
        return "lower"
    return "higher" if "/s" in unit or "per CPU-second" in unit or "per second" in unit else ""


def measured(row: dict, label: str, **more) -> Bar:
    ends = (row.get("p20"), row.get("p80"))
    low, high = ends if all(map(finite, ends)) and ends[0] < ends[1] else (None, None)
    return Bar(label, row["p50"], low, high, **more)


# ------------------------------------------------------------------------------------------------- any benchmark


def by_rule(result: Result) -> Iterator[Figure]:
    rows = [row | {"p50": row.get("p50", row.get("value"))} for row in result.rows]
    rows = [row for row in rows if finite(row["p50"]) and isinstance(row.get("unit"), str)]
    for unit in dict.fromkeys(row["unit"] for row in rows):
        some = [row for row in rows if row["unit"] == unit]
        labels = _labels(some)
        has_ours = any(_is_ours(label) for label in labels)
        bars = []
        for row, label in zip(some, labels, strict=True):
            limit = "limit" in label or "ceiling" in label
            role = "limit" if limit else "ours" if _is_ours(label) or not has_ours else "peer"
            bars.append(measured(row, label, role=role))
        marks = {(row["bar"], "bar") for row in some if finite(row.get("bar"))}
        marks |= {(row["limit"], "limit") for row in some if finite(row.get("limit"))}
        if len(marks) == 1:  # one line for all bars; several would each concern some of them only
            ((value, kind),) = marks
            drawn = (Mark(value, f"{kind} {number(value)}", kind),)
        else:
            drawn = ()
        yield Figure(f"{result.name}: {unit}", "", unit, better_way(unit), bars, result, drawn)


def _labels(rows: list[dict]) -> list[str]:
    texts = list(dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, (str, bool)) and k != "unit"))
    whole = list(dict.fromkeys(k for row in rows for k, v in row.items() if type(v) is int and k != "p50"))
    differ = [k for k in texts if len({row.get(k) for row in rows}) > 1]
    differ += [
        k for k in whole if len({row.get(k) for row in rows}) > 1 and len({_key(r, differ) for r in rows}) < len(rows)
    ]
    chosen = differ or texts[:1] or whole[:1]
    return [", ".join(_word(k, row[k]) for k in chosen if k in row) or f"row {n}" for n, row in enumerate(rows, 1)]


def _key(row: dict, columns: list[str]) -> tuple:
    return tuple(row.get(c) for c in columns)


def _word(name: str, value: object) -> str:
    if isinstance(value, bool):
        return name.replace("_", " ") if value else f"no {name.replace('_', ' ')}"
    return value if isinstance(value, str) else f"{name.replace('_', ' ')} {value:,}"


def _is_ours(label: str) -> bool:
    return any(word in label.lower() for word in ("unstill", "triton", "ours", "albar compiled"))

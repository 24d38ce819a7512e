"""The figures of the report: bars and marks, made of what the rows of a result file say of themselves.

A row names its figure, the section of its benchmark (``bench/suites``) has the figure's words. The rows of a benchmark
that has no section are drawn too, one figure a unit.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from ...pipeline.errors import InputError
from ...trainer.augmentations import Augmentation
from ...trainer.methods import Albar, Baseline
from ...trainer.methods.base_methods import BaseMethod
from ..harness.result_files import Result
from ..harness.row import Better, Role, Row, finite, number
from ..harness.section import Chart, Section

_PARTS = (Albar, Baseline, *get_args(BaseMethod), *get_args(Augmentation))
# not those that are words of English, too, in their usual form, such as Recast
_NAMES = {part.title.lower(): part.title for part in _PARTS if not (part.title.istitle() or len(part.title) < 3)}
_LOWERED = re.compile(rf"\b({'|'.join(map(re.escape, _NAMES))})\b")


def as_written(text: str) -> str:
    """Text of a result file with the methods' names as people write them: ``albar`` is ALBAR."""
    return _LOWERED.sub(lambda found: _NAMES[found[0]], text)


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: what was measured.
        value: where the bar ends.
        low, high: ends of the whisker.
        role: ours, a peer, or a limit that nothing can pass.
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
    """A vertical line: the project's target (dashed), or a reference."""

    value: float
    label: str
    target: bool = True


@dataclass(frozen=True)
class Figure:
    """Bars over one unit.

    Attributes:
        chart: its words.
        unit: of all values.
        better: higher, lower, or nothing to say.
        bars, marks: what is drawn.
        result: the file that it comes from.
    """

    chart: Chart
    unit: str
    better: Better
    bars: list[Bar]
    result: Result
    marks: tuple[Mark, ...] = ()

    @property
    def title(self) -> str:
        """What is compared."""
        return self.chart.title

    @property
    def spread(self) -> bool:
        """Whether any bar has a whisker."""
        return any(bar.low is not None for bar in self.bars)

    @property
    def percent(self) -> bool:
        """Whether the axis is that of all percentages, 0 to 100."""
        return self.unit == "percent" and all(0 <= bar.value <= 100 for bar in self.bars)

    @property
    def end(self) -> float:
        """Where the axis ends."""
        if self.percent:
            return 100.0
        ends = [v for bar in self.bars for v in (bar.value, bar.high or 0.0)] + [mark.value for mark in self.marks]
        return max(ends) * 1.02 or 1.0

    def text(self, value: float) -> str:
        """A value with the decimals that the longest bar needs for three digits."""
        longest = max(abs(bar.value) for bar in self.bars)
        if all(float(bar.value).is_integer() for bar in self.bars):
            return f"{value:,.0f}"
        power = math.floor(math.log10(longest)) if longest else 0
        return f"{value:,.{max(0, 2 - power)}f}"


def figures(result: Result, section: Section | None) -> list[Figure]:
    """All figures of a file, in the order of its section.

    Args:
        result: the file.
        section: of its benchmark; None where no benchmark of this version writes such a file.

    Raises:
        InputError: a row names a figure that the section does not have, or one figure's rows have several units.
    """
    if section is None:
        return _by_unit(result)
    known = list(dict.fromkeys(chart.of or name for name, chart in section.charts.items()))
    unknown = sorted({row.figure for row in result.rows if row.figure} - {*known})
    if unknown:
        raise InputError(
            f"{result.file}: rows name the figure {unknown[0]!r}, expected one of {', '.join(known)}; the "
            f"file is of another version, measure it again with `{result.command}`"
        )
    found = []
    for name, chart in section.charts.items():
        rows = [row for row in result.rows if row.figure == (chart.of or name)]
        if bars := _bars(rows, chart):
            found.append(_figure(chart, rows, bars, result))
    return found


def _by_unit(result: Result) -> list[Figure]:
    rows = [row for row in result.rows if finite(row.value)]
    drawn = []
    for unit in dict.fromkeys(row.unit for row in rows):
        chart, some = Chart(title=f"{result.name}: {unit}"), [row for row in rows if row.unit == unit]
        drawn.append(_figure(chart, some, _bars(some, chart), result))
    return drawn


def _figure(chart: Chart, rows: Sequence[Row], bars: list[Bar], result: Result) -> Figure:
    if chart.column:
        unit, better, targets = chart.unit, chart.better, set[float]()
    else:
        units, ways = {row.unit for row in rows}, {row.better for row in rows}
        if len(units) > 1:
            raise InputError(f"{result.file}: the rows of {chart.title!r} have several units: {', '.join(units)}")
        unit, better = units.pop(), rows[0].better if len(ways) == 1 else ""  # several ways: the groups' headings say
        found = (row.at_most if row.at_least is None else row.at_least for row in rows)
        targets = {value for value in found if value is not None}
    marks = [Mark(*chart.reference, target=False)] if chart.reference else []
    marks += [Mark(value, f"target {number(value)}") for value in targets]
    return Figure(chart, unit, better, bars, result, tuple(marks))


def _bars(rows: Sequence[Row], chart: Chart) -> list[Bar]:
    """In the order of the rows, those of one group together."""
    groups = list(dict.fromkeys(row.group for row in rows))
    found = []
    for row in sorted(rows, key=lambda row: groups.index(row.group)):
        value, low, high = _ends(row, chart.column)
        if finite(value):
            words = {"group": as_written(row.group), "detail": as_written(row.detail)}
            found.append(Bar(as_written(row.label or row.title), value, low, high, role=row.role, **words))
    return found


def _ends(row: Row, column: str) -> tuple[object, float | None, float | None]:
    """Value and ends of the whisker."""
    if not column:
        return row.value, row.p20, row.p80
    value, sd = row.facts.get(column), row.facts.get(f"{column}_sd")
    if not (finite(value) and finite(sd)) or not sd:
        return value, None, None
    return value, max(value - sd, 0.0), value + sd


def on_several_devices(figures: Sequence[Figure]) -> set[str]:
    """Titles that figures of more than one device have: there the device belongs to the title."""
    places: dict[str, set[str]] = {}
    for figure in figures:
        places.setdefault(figure.title, set()).add(figure.result.where)
    return {title for title, where in places.items() if len(where) > 1}


def of_the_best_device(figures: Sequence[Figure]) -> list[Figure]:
    """Of figures of one title on several devices those of a GPU: a picture has room for one, the page has all."""
    on_gpu = {figure.title for figure in figures if "gpu" in figure.result.machine}
    return [figure for figure in figures if "gpu" in figure.result.machine or figure.title not in on_gpu]


@dataclass(frozen=True)
class Target:
    """A number that the project wants to reach, and what was measured."""

    row: Row
    result: Result
    of: int

    @property
    def what(self) -> str:
        """What was measured, and of how many it is the worst."""
        title = as_written(self.row.title)
        return f"{title} (the worst of {self.of})" if self.of > 1 else title

    @property
    def bound(self) -> str:
        """``at least 0.9``."""
        if self.row.at_least is not None:
            return f"at least {number(self.row.at_least)}"
        return f"at most {number(self.row.at_most or 0)}"


def targets(result: Result) -> list[Target]:
    """Every target of a file: of the rows that share one, the worst. A row without a number is worse than all."""
    alike: dict[str, list[Row]] = {}
    for row in result.rows:
        if row.met is not None:
            alike.setdefault(row.target or row.title, []).append(row)
    return [Target(max(rows, key=_badness), result, len(rows)) for rows in alike.values()]


def _badness(row: Row) -> float:
    if not finite(row.value):
        return math.inf
    return row.value if row.at_most is not None else -row.value


def headlines(results: Sequence[Result]) -> list[dict[str, str]]:
    """The numbers for the top of the page, CPU or GPU, in the order of the files."""
    return [
        {
            "value": number(row.value),
            "unit": "×" if row.unit == "times" else row.unit.split()[0],
            "words": row.headline,
            "file": result.file,
        }
        for result in results
        for row in result.rows
        if row.headline and finite(row.value)
    ]

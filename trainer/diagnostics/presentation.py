"""What a diagnosis shows, and its three files: NAME.json for programs, NAME.html for people, NAME.png for a paper.

All are made from one ``Diagnosis``. The page needs no other file, no network and no script.
"""

import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Terminal

from ...pipeline.atomic_files import make_folder, write_atomic
from ...pipeline.pages import template
from ...pipeline.safe_text import printable
from .clip_strips import data_uri

INK, SOFT, RULE, PAGE, COLOURS = (
    "#1d1c1a",
    "#66625c",
    "#e6e2db",
    "#fbfaf8",
    ("#c9b89c", "#0f7c78", "#b8772e", "#66625c"),
)


@dataclass(frozen=True)
class Bar:
    """One value of a chart.

    Attributes:
        group: heading that it shares with others.
        label: what it is of, mostly a model; bars of one label have one colour.
        value: the number.
        low, high: ends of its interval, if it has one.
    """

    group: str
    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """Horizontal bars from 0 to ``end``.

    Attributes:
        title: what is compared, with the unit.
        bars: in order; those of one group follow each other.
        end: value at the right edge.
        reading: how to read it.
        reference: a value that is marked, and its name.
    """

    title: str
    bars: Sequence[Bar]
    end: float
    reading: str = ""
    reference: tuple[float, str] | None = None

    @property
    def percent(self) -> bool:
        """Whether the bars are percentages."""
        return self.end >= 100


@dataclass(frozen=True)
class Table:
    """Texts in rows; columns from the second on are numbers unless ``text`` names them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    text: Sequence[str] = ()


@dataclass(frozen=True)
class Strip:
    """The frames of one clip side by side, once for every way of looking at it.

    Attributes:
        title: what the clip is.
        rows: (label, caption, uint8 (H,W,3)) each.
    """

    title: str
    rows: Sequence[tuple[str, str, np.ndarray]]


@dataclass(frozen=True)
class Diagnosis:
    """Everything that one diagnosis found.

    Attributes:
        name: of its files.
        title: what was asked.
        shows: what the numbers say, and what they cannot say, in sentences.
        content: what goes into the JSON file under "results".
        charts, tables, strips: for people.
        facts: how it was measured.
    """

    name: str
    title: str
    shows: Sequence[str]
    content: object
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    strips: Sequence[Strip] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def show(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print the tables."""
    console = console or Console()
    for table in diagnosis.tables:
        drawn = Terminal(title=escape(printable(table.title)), title_justify="left")
        for number, column in enumerate(table.columns):
            words = number == 0 or column in table.text
            drawn.add_column(escape(printable(column)), justify="left" if words else "right")
        for row in table.rows:
            drawn.add_row(*(escape(printable(cell)) for cell in row))
        console.print(drawn)
        if table.note:
            console.print(printable(table.note), markup=False, highlight=False)


def write(diagnosis: Diagnosis, out: Path) -> list[Path]:
    """Write the three files into a folder, or the JSON alone to a path that ends in ``.json``; returns their paths.

    Raises:
        InputError: the folder cannot be written.
    """
    record = {"diagnosis": diagnosis.name, "facts": dict(diagnosis.facts), "results": _plain(diagnosis.content)}
    text = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    if out.suffix == ".json":
        make_folder(out.parent)
        write_atomic(out, text)
        return [out]
    make_folder(out)
    contents = {".json": text, ".html": html(diagnosis).encode(), ".png": picture(diagnosis)}
    paths = [out / f"{diagnosis.name}{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths


def html(diagnosis: Diagnosis) -> str:
    """The page."""
    return template(Path(__file__).with_name("diagnosis.html.j2")).render(
        diagnosis=diagnosis,
        charts=[(chart, _groups(chart), _labels(chart)) for chart in diagnosis.charts],
        strips=[
            (strip.title, [(label, caption, data_uri(image), image.shape) for label, caption, image in strip.rows])
            for strip in diagnosis.strips
        ],
        percent=lambda value, chart: f"{100 * min(max(value / chart.end, 0.0), 1.0):.2f}",
        number=number,
    )


def picture(diagnosis: Diagnosis) -> bytes:
    """The charts, then the strips, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [0.55 + 0.24 * len(chart.bars) + 0.3 * len(_groups(chart)) for chart in diagnosis.charts]
    heights += [0.3 + 0.02 + sum(_strip_height(image) for _, _, image in strip.rows) for strip in diagnosis.strips]
    title = textwrap.wrap(diagnosis.title, 88)
    head = 0.3 + 0.26 * len(title)
    total = head + sum(heights) + 0.35 * len(heights)
    sheet = Figure(figsize=(WIDTH, total), dpi=110, facecolor=PAGE)
    FigureCanvasAgg(sheet)
    sheet.text(0.02, 1 - 0.32 / total, "\n".join(title), fontsize=13, weight="bold", color=INK, va="top")
    top = head
    for chart, height in zip(diagnosis.charts, heights, strict=False):
        axes = sheet.add_axes(
            (LEFT / WIDTH, 1 - (top + height) / total, 1 - (LEFT + 0.7) / WIDTH, (height - 0.4) / total)
        )
        sheet.text(0.02, 1 - (top + 0.22) / total, chart.title, fontsize=10.5, weight="bold", color=INK)
        _draw(axes, chart)
        top += height + 0.35
    for strip, height in zip(diagnosis.strips, heights[len(diagnosis.charts) :], strict=True):
        sheet.text(0.02, 1 - (top + 0.22) / total, strip.title, fontsize=10.5, weight="bold", color=INK)
        at = top + 0.3
        for label, caption, image in strip.rows:
            high = _strip_height(image)
            axes = sheet.add_axes(
                (LEFT / WIDTH, 1 - (at + high) / total, 1 - (LEFT + 0.1) / WIDTH, (high - 0.04) / total)
            )
            axes.imshow(image, aspect="auto", interpolation="nearest")
            axes.set_axis_off()
            words = "\n".join([*textwrap.wrap(label, 22), *textwrap.wrap(caption, 26)])
            sheet.text(0.02, 1 - (at + high / 2) / total, words, fontsize=7.5, color=INK, va="center")
            at += high
        top += height + 0.35
    file = io.BytesIO()
    sheet.savefig(file, format="png", facecolor=PAGE, metadata={"Software": None})
    if diagnosis.strips:  # a palette of 256 colours is for charts: it would bend those of pictures
        return file.getvalue()
    small = io.BytesIO()
    Image.open(file).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE).save(small, "png", optimize=True)
    return small.getvalue()


WIDTH, LEFT = 9.6, 1.9  # of the picture and of its column of labels, in inches


def number(value: float) -> str:
    """Two or three digits."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def interval(value: float, low: float, high: float) -> str:
    """``0.42 [0.31, 0.53]``."""
    return f"{number(value)} [{number(low)}, {number(high)}]" if math.isfinite(value) else "–"


def _strip_height(image: np.ndarray) -> float:
    return (WIDTH - LEFT - 0.1) * image.shape[0] / image.shape[1]


def _groups(chart: Chart) -> list[tuple[str, list[Bar]]]:
    found: dict[str, list[Bar]] = {}
    for bar in chart.bars:
        found.setdefault(bar.group, []).append(bar)
    return list(found.items())


def _labels(chart: Chart) -> list[str]:
    return list(dict.fromkeys(bar.label for bar in chart.bars))


def _draw(axes, chart: Chart) -> None:
    labels, at, marks = _labels(chart), 0.0, []
    for name, bars in _groups(chart):
        axes.text(0, at + 0.25, name, fontsize=8.5, color=SOFT, va="center", transform=axes.transData)
        at += 1.0
        for bar in bars:
            axes.barh(at, chart.end, 0.78, color=RULE, linewidth=0)
            value = bar.value if math.isfinite(bar.value) else 0.0
            axes.barh(at, min(max(value, 0), chart.end), 0.78, color=COLOURS[labels.index(bar.label) % len(COLOURS)])
            if bar.low is not None and bar.high is not None:
                axes.plot([max(bar.low, 0), min(bar.high, chart.end)], [at, at], color=INK, linewidth=1)
            axes.text(chart.end * 1.01, at, number(bar.value), fontsize=8.5, va="center", color=INK)
            marks.append((at, bar.label))
            at += 1.0
    if chart.reference is not None:
        axes.axvline(chart.reference[0], color=INK, linewidth=0.8, linestyle=":")
        axes.text(chart.reference[0], -0.5, chart.reference[1], fontsize=7.5, color=SOFT, ha="center", va="bottom")
    axes.set_xlim(0, chart.end)
    axes.set_ylim(at - 0.4, -0.4)
    axes.set_yticks([place for place, _ in marks], [label for _, label in marks], fontsize=8.5, color=INK)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_facecolor(PAGE)


def _plain(value: object) -> object:
    """For JSON, which has no numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.integer | np.bool_) else value

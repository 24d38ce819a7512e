"""Figures of the report as a PNG for a README: one column, 1.5 times the 830 pixels of GitHub's page, with captions."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from matplotlib.font_manager import get_font_names
from PIL import Image

from .figures import Figure, on_several_devices

INK, SOFT, FAINT, RULE = "#1d1c1a", "#66625c", "#8d887f", "#e6e2db"
PAGE, OURS, PEER, LIMIT, TARGET = "#fbfaf8", "#0f7c78", "#c9b89c", "#dcd8d0", "#b8772e"
COLOURS = {"ours": OURS, "peer": PEER, "limit": LIMIT}
_INSTALLED = set(get_font_names())
FONTS = [name for name in ("Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans") if name in _INSTALLED]

# inches
WIDTH, MARGIN, LABELS, VALUES = 8.3, 0.3, 2.7, 0.6
COLUMN = WIDTH - 2 * MARGIN
BAR_STEP, GROUP_STEP, LINE, TITLE, GAP = 0.25, 0.27, 0.185, 0.3, 0.34
DPI = 150
LONGEST = 42  # characters of a label that fit


def picture(title: str, figures: Sequence[Figure]) -> bytes:
    """A PNG of the figures, one below the other.

    Args:
        title: of the picture.
        figures: what is drawn; one of several devices names its device.
    """
    height = 1.0 + sum(_height(figure) + GAP for figure in figures) + 0.1
    sheet = Sheet(figsize=(WIDTH, height), dpi=DPI, facecolor=PAGE)
    FigureCanvasAgg(sheet)
    canvas = _Canvas(sheet, height)
    canvas.text(MARGIN, 0.42, title, size=15, weight="bold")
    _key(canvas)
    several, top = on_several_devices(figures), 1.0  # below the head, in inches from the top
    for figure in figures:
        words = f"{figure.title}: {figure.result.where}" if figure.title in several else figure.title
        _draw(canvas, figure, words, MARGIN, top)
        top += _height(figure) + GAP
    file = io.BytesIO()
    sheet.savefig(file, format="png", facecolor=PAGE, metadata={"Software": None})
    # a palette makes the file a third of its size; of Pillow's three ways MAXCOVERAGE alone keeps thin coloured lines
    # (largest error 2 of 255), the default turns the targets grey
    small = io.BytesIO()
    palette = Image.open(file).convert("RGB").quantize(128, method=Image.Quantize.MAXCOVERAGE)
    palette.save(small, format="png", optimize=True)
    return small.getvalue()


class _Canvas:
    """A sheet addressed in inches from its top left corner."""

    def __init__(self, sheet: Sheet, height: float):
        self.sheet, self.height = sheet, height

    def text(self, x: float, y: float, words: str, *, size: float, colour: str = INK, **style) -> None:
        """Words whose base line is at ``y``."""
        where = (x / WIDTH, 1 - y / self.height)
        self.sheet.text(*where, words, fontsize=size, color=colour, family=FONTS, **style)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose top left corner is at (x, y)."""
        box = (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height)
        axes = self.sheet.add_axes(box)
        axes.set_facecolor(PAGE)
        return axes


def _key(canvas: _Canvas) -> None:
    axes = canvas.axes(MARGIN, 0.58, WIDTH - 2 * MARGIN, 0.22)
    axes.set_xlim(0, WIDTH - 2 * MARGIN)
    axes.set_ylim(0, 1)
    axes.axis("off")
    x = 0.0
    for words, role in (("unstill", "ours"), ("peers", "peer"), ("limit or floor", "limit")):
        axes.barh(0.5, 0.3, left=x, height=0.6, color=COLOURS[role], **_hatch(role))
        x = _key_words(axes, x + 0.38, words)
    axes.plot([x, x], [0, 1], color=TARGET, linewidth=1.6, linestyle=(0, (3, 2)))
    x = _key_words(axes, x + 0.1, "target")
    axes.plot([x, x], [0, 1], color=FAINT, linewidth=1.4)
    x = _key_words(axes, x + 0.1, "reference")
    axes.errorbar(x + 0.15, 0.5, xerr=0.15, color=INK, linewidth=1.2, capsize=2.5)
    _key_words(axes, x + 0.38, "spread")


def _key_words(axes: Axes, x: float, words: str) -> float:
    axes.text(x, 0.45, words, fontsize=9.5, color=SOFT, va="center", family=FONTS)
    return x + 0.072 * len(words) + 0.2


def _hatch(role: str) -> dict:
    return {"hatch": "////", "edgecolor": FAINT, "linewidth": 0.8} if role == "limit" else {}


def _reading(figure: Figure) -> list[str]:
    return textwrap.wrap(figure.chart.reading, 118) if figure.chart.reading else []


def _unit(figure: Figure) -> str:
    words = [figure.unit]
    if figure.better:
        words.append(f"{'longer' if figure.better == 'higher' else 'shorter'} is better")
    if figure.spread:
        words.append(f"whiskers: {figure.chart.whiskers}")
    words += [f"{'dashed' if mark.target else 'solid'} line: {mark.label}" for mark in figure.marks]
    return " · ".join(words)


def _caption(figure: Figure) -> list[str]:
    return textwrap.wrap(figure.result.source, 140)


def _groups(figure: Figure) -> int:
    heads, last = 0, ""
    for bar in figure.bars:
        heads, last = heads + (bar.group != last), bar.group
    return heads


def _bars_height(figure: Figure) -> float:
    return BAR_STEP * len(figure.bars) + GROUP_STEP * _groups(figure)


def _height(figure: Figure) -> float:
    lines = len(_reading(figure)) + 1 + len(_caption(figure))
    return TITLE + LINE * lines + 0.12 + _bars_height(figure)


def _draw(canvas: _Canvas, figure: Figure, title: str, x: float, top: float) -> None:
    canvas.text(x, top + 0.16, title, size=12, weight="bold")
    y = top + TITLE + 0.1
    for line in _reading(figure):
        canvas.text(x, y, line, size=8.6, colour=SOFT)
        y += LINE
    canvas.text(x, y, _unit(figure), size=8.2, colour=FAINT)
    y += 0.08
    height = _bars_height(figure)
    axes = canvas.axes(x + LABELS, y, COLUMN - LABELS - VALUES, height)
    axes.set_xlim(0, figure.end)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for mark in figure.marks:
        dashed: dict[str, Any] = {"linestyle": (0, (3, 2)), "color": TARGET} if mark.target else {"color": FAINT}
        axes.plot([mark.value, mark.value], [0, height], linewidth=1.4, zorder=3, **dashed)
    inch = figure.end / (COLUMN - LABELS - VALUES)
    at, last = 0.0, ""
    for bar in figure.bars:
        if bar.group != last:
            style: dict[str, Any] = {"fontsize": 8.8, "color": SOFT, "weight": "bold", "family": FONTS, "zorder": 5}
            behind = {"facecolor": PAGE, "edgecolor": "none", "pad": 1.0}  # a line may run through it
            axes.text(-LABELS * inch, at + 0.17, bar.group, bbox=behind, **style)
            at, last = at + GROUP_STEP, bar.group
        middle = at + BAR_STEP / 2
        axes.barh(middle, bar.value, height=0.155, color=COLOURS[bar.role], zorder=2, **_hatch(bar.role))
        if bar.low is not None and bar.high is not None:
            ends = [[bar.value - bar.low], [bar.high - bar.value]]
            axes.errorbar(bar.value, middle, xerr=ends, color=INK, linewidth=1.1, capsize=2.2, zorder=4)
        label = bar.label if len(bar.label) <= LONGEST else bar.label[: LONGEST - 1] + "…"
        axes.text(-0.1 * inch, middle, label, fontsize=8.8, color=INK, va="center", ha="right", family=FONTS)
        value = figure.end + (VALUES - 0.02) * inch
        axes.text(value, middle, figure.text(bar.value), fontsize=8.8, color=INK, va="center", ha="right", family=FONTS)
        at += BAR_STEP
    y += height + 0.12
    for line in _caption(figure):
        canvas.text(x, y, line, size=7, colour=FAINT)
        y += LINE * 0.8

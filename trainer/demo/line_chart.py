"""Small line charts as inline SVG, which take their colours from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 10, 24


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        style: class of the stroke in the style sheet.
        x, y: points; those with a y that is None or not finite are left out.
    """

    style: str
    x: Sequence[float]
    y: Sequence[float | None]


def line_chart(lines: Sequence[Line], title: str, *, reference: float | None = None, low: float | None = None) -> str:
    """An SVG element; axes, grid and labels are of class ``axis``, ``grid`` and ``tick``.

    Args:
        lines: what to draw.
        title: for screen readers.
        reference: a dashed horizontal line, such as chance.
        low: the y axis starts here, if the data do not lie below it.
    """
    curves = [_finite_points(line) for line in lines]
    xs, ys = [x for points in curves for x, _ in points], [y for points in curves for _, y in points]
    if not xs:
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}: nothing logged</title></svg>'
    values = ys + ([reference] if reference is not None else []) + ([low] if low is not None else [])
    ticks = _ticks(min(values), max(values))
    x0, x1, y0, y1 = min(xs), max(xs), min(ticks[0], *values), max(ticks[-1], *values)
    across = lambda v: LEFT + (v - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - RIGHT)  # noqa: E731
    up = lambda v: HEIGHT - BOTTOM - (v - y0) / ((y1 - y0) or 1) * (HEIGHT - TOP - BOTTOM)  # noqa: E731

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>']
    for tick in ticks:
        y = up(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(x0, x1, 5):
        if x0 <= tick <= x1:
            parts.append(
                f'<text class="tick" x="{across(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{tick:g}</text>'
            )
    if reference is not None:
        parts.append(f'<path class="reference" d="M{LEFT} {up(reference):.1f}H{WIDTH - RIGHT}"/>')
    for line, curve in zip(lines, curves, strict=True):
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve)
        parts.append(f'<polyline class="line {escape(line.style)}" points="{points}"/>')
    return "".join([*parts, "</svg>"])


def smooth(values: Sequence[float | None], keep: float = 0.7) -> list[float | None]:
    """Exponential moving average without a bias at the start; gaps stay gaps."""
    out, total, weight = [], 0.0, 0.0
    for value in values:
        if value is None or not math.isfinite(value):
            out.append(None)
            continue
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        out.append(total / weight)
    return out


def _finite_points(line: Line) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None and math.isfinite(y)]


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, about ``count`` steps apart."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]

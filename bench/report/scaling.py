"""``python -m unstill.bench.report.scaling``: write SCALING.md from the result files; it computes every number there.

A number is rounded to three digits where it is first printed, and what follows is computed from the rounded one, so
that the arithmetic on the page can be repeated from the page.
"""

import re
import textwrap
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from ...pipeline.atomic_files import write_atomic
from ...pipeline.errors import InputError
from ...pipeline.loading.sampler import ClipConfig
from ...pipeline.shards.fragments import touched_fragments
from ...trainer.monitoring.flops import PEAK_BF16
from ..harness.record import RESULTS
from ..harness.result_files import Result, read_results
from ..harness.row import Row

PAGE = Path(__file__).parents[1] / "SCALING.md"
VIDEO_FRAMES, GOP = 300, 12  # ten seconds at 30 frames/s; the converter's default
RECIPES = {  # the two ends of the recipes for Kinetics-400: clip, TFLOP of a clip's part of a step (step_flops)
    "albar": (ClipConfig(frames=32, stride=2, size=224), 1.81),  # swin3d_t, ALBAR, closed attention
    "scratch": (ClipConfig(frames=16, stride=2, size=112), 0.241),  # r3d_18, cross entropy
}
STEPS = {"albar": ("swin3d_t", "albar compiled"), "scratch": ("r3d_18", "cross entropy compiled")}
ASSUMED_SHARE = 0.3  # of the GPU's peak, while no file of a GPU says better


class Numbers:
    """Named numbers of the page, and where they come from."""

    def __init__(self):
        self.values: dict[str, float] = {}

    def let(self, name: str, value: float | None) -> str:
        """Name a number and print it."""
        assert value is not None, f"{name} was measured"
        self.values[name] = rounded(value)
        return printed(self.values[name])

    def work(self, name: str, expression: str) -> str:
        """Compute from named numbers, name the result, and print the arithmetic: ``240,000 × 3.7 / 3,600 = 247``."""
        value = rounded(eval(expression, {"__builtins__": {}}, self.values))
        shown = re.sub(r"[a-z_]\w*", lambda match: printed(self.values[match[0]]), expression)
        shown = re.sub(r"(?<![\w.,])\d[\d.]*(?![\w.,])", lambda match: printed(float(match[0])), shown)
        self.values[name] = value
        return f"{shown.replace('*', '×')} = {printed(value)}"

    def get(self, name: str, expression: str | None = None) -> str:
        """Print a named number, or the result of an expression alone."""
        if expression is not None:
            self.work(name, expression)
        return printed(self.values[name])


def rounded(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def printed(value: float) -> str:
    """Without an exponent; thousands separated."""
    if value >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return np.format_float_positional(value, trim="-")


def page(results: list[Result]) -> str:
    """SCALING.md.

    Raises:
        InputError: a file, or a row in it, is missing.
    """
    numbers = Numbers()
    _inputs(numbers, results)
    shares = _shares_of_peak(numbers, results)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    files = {name: _file(results, name) for name in ("convert-cpu.json", "growth-cpu.json", "loader-cpu.json")}
    template = environment.get_template("SCALING.md.j2")
    return wrapped(
        template.render(
            let=numbers.let,
            work=numbers.work,
            get=numbers.get,
            shares=shares,
            files=files.values(),
            trained=_trained(results),
        )
    )


def wrapped(text: str) -> str:
    """Markdown with its paragraphs and numbered items broken at 120 columns; tables and headings stay as they are."""
    out = []
    for block in text.strip().split("\n\n"):
        items = [block] if block[0] in "|#" else re.split(r"\n(?=\d+\. )", block)
        for item in items:
            indent = "   " if re.match(r"\d+\. ", item) else ""
            words = " ".join(item.split())
            lines = item if block[0] in "|#" else textwrap.fill(words, 120, subsequent_indent=indent, **_UNBROKEN)
            out.append(lines)
        out[-1] += "\n"
    return "\n".join(out)


_UNBROKEN: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _inputs(numbers: Numbers, results: list[Result]) -> None:
    convert, growth, loader = (_file(results, f"{name}-cpu.json") for name in ("convert", "growth", "loader"))
    numbers.let("frame_rate", _row(convert, measure="rate", codec="h264").value)
    numbers.let("megabytes", _row(convert, measure="size", codec="h264").value)
    numbers.let("two_workers", _row(convert, measure="workers").value)
    numbers.let("read_rate", _row(loader, measure="reading").value)
    numbers.let("clip_rate", _row(loader, measure="rate", path="unstill (GOPs only)").value)
    numbers.let("index_bytes", _row(growth, measure="memory", samples=10_000_000).facts["index_bytes_per_sample"])
    numbers.let("memory_large", _row(growth, measure="memory", samples=10_000_000).value)
    numbers.let("start_large", _row(growth, measure="start-up", samples=10_000_000).facts["start_up_s"])
    # Kinetics-400 lies between these two sizes: the larger value of both
    sizes = (100_000, 1_000_000)
    numbers.let("memory_small", max(_row(growth, measure="memory", samples=n).value or 0 for n in sizes))
    numbers.let("start_small", max(_row(growth, measure="start-up", samples=n).facts["start_up_s"] for n in sizes))
    numbers.let("peak", PEAK_BF16["H200"] / 1e12)
    for name, (clip, tflop) in RECIPES.items():
        gops, frames = per_clip(clip)
        numbers.let(f"gops_{name}", gops)
        numbers.let(f"frames_{name}", frames)
        numbers.let(f"layered_{name}", layered_frames(clip))
        numbers.let(f"tflop_{name}", tflop)


def _shares_of_peak(numbers: Numbers, results: list[Result]) -> dict[str, str]:
    """What the steps of both recipes reach, and where that is from: a GPU's file where there is one."""
    sources = {}
    for name, (model, variant) in STEPS.items():
        numbers.let(f"mfu_{name}", ASSUMED_SHARE)
        sources[name] = "**assumed**; not measured on a GPU"
        for result in results:
            steps = [row.facts for row in result.rows if result.name == "step"]
            found = [f["mfu"] for f in steps if (f.get("model"), f.get("variant")) == (model, variant) and "mfu" in f]
            if found:
                numbers.let(f"mfu_{name}", found[0])
                sources[name] = f"measured: `{result.file}`, row `{model}`, `{variant}`"
    return sources


def _trained(results: list[Result]) -> str:
    """Clips/s of cross entropy on r3d_18 from shards, where a GPU trained it; else nothing."""
    for result in results:
        for row in result.rows if result.name == "train" and "gpu" in result.machine else ():
            if (row.facts.get("loader"), row.facts.get("model")) == ("real", "r3d_18") and row.value:
                facts = f"{row.facts['clip']} clips, {row.facts['batch']} in a step"
                return f"{printed(rounded(row.value))} clips/s on one {result.where} ({facts}; `{result.file}`)"
    return ""


def per_clip(clip: ClipConfig) -> tuple[float, float]:
    """GOPs that a clip touches, and frames from the first one's key frame to its last frame: means over all starts."""
    span = (clip.frames - 1) * clip.stride + 1
    starts = np.arange(VIDEO_FRAMES - span + 1)
    first, last = touched_fragments(starts, span, VIDEO_FRAMES, GOP)
    return float((last - first).mean()), float((starts - first * GOP + span).mean())


def layered_frames(clip: ClipConfig) -> float:
    """Frames that a clip of stride 2 decodes where even frames need no odd ones: the mean over all even starts."""
    starts = np.arange(0, VIDEO_FRAMES - (clip.frames - 1) * clip.stride, 2)
    return float((starts % GOP / 2).mean() + clip.frames)


def _file(results: list[Result], file: str) -> Result:
    for result in results:
        if result.file == file:
            return result
    raise InputError(f"{file}: not among the result files; run `unstill bench {file.partition('-')[0]}` on a CPU")


def _row(result: Result, **wanted) -> Row:
    for row in result.rows:
        if all(row.facts.get(name) == value for name, value in wanted.items()):
            return row
    raise InputError(f"{result.file}: no row with {wanted}; measure it again with `{result.command}`")


if __name__ == "__main__":
    write_atomic(PAGE, page(read_results(RESULTS)).encode())
    print(f"written: {PAGE.name}")

"""`unstill bench report`: one page and one picture of all result files: ours, peers, limits and bars.

It reads the JSON files and nothing else: whoever has them can draw the report again. ``report.html`` needs no other
file, no network and no script; ``report.png`` is for a README.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...pipeline.atomic_files import make_folder, write_atomic
from ...pipeline.pages import template
from ..harness.record import RESULTS
from ..harness.result_files import Result, read_results
from .figures import finite, number, on_several_devices
from .known import figures, headlines
from .picture import picture
from .promises import Promise, promises

SECTIONS = {  # in this order, and after them what is not named here: title, what it is about
    "demo": ("The demonstration", "One network trained twice: does it name what moves, or what stands in the picture?"),
    "bias": ("Every method on one dataset", "Accuracy when scene, still frame or looks no longer give the class away."),
    "bias_tuning": ("The rivals' main constants", "Each value that their authors choose among, on other seeds."),
    "convert": ("Conversion: videos to shards", "How fast, beside the ffmpeg command line, and in how much memory."),
    "loader": ("Loader: shards to clips", "Random clips beside other loaders, on the same videos."),
    "loader_on_cpu": ("Loader on the processor of a GPU machine", "Where the GPU's video decoders cannot be used."),
    "growth": ("Growth with the dataset", "What ten thousand to ten million videos cost before the first clip."),
    "kernels": ("Kernels: frames to clips, logits to losses", "Triton beside torch, and what the memory allows."),
    "kernels_sm90": ("Kernels, compiled for sm_90", "What the compiler reports without running them."),
    "step": (
        "The training step",
        "The ALBAR step beside eager torch, the official arithmetic and plain cross entropy.",
    ),
    "recipes": ("The recipes' steps", "What a step of each published recipe costs, for one clip of its full shape."),
    "train": ("Training", "Whole runs: how fast, and how long they wait for data."),
    "train_on_cpu": ("Training on the processor of a GPU machine", "Where the GPU's video decoders cannot be used."),
    "roofline": ("What limits this machine", "Each stage beside the ceiling that was measured for it."),
}


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Draw the committed results."""

    results: Path | None = None
    """Folder of the result files; by default that of --out."""
    out: Path | None = None
    """Folder for report.html and report.png; bench/results by default, $OUT when that is set."""


def run(options: ReportOptions | None = None) -> Path:
    """Draw the page and the picture; return the page's path.

    Raises:
        InputError: there are no result files, or one is broken.
    """
    options = options or ReportOptions()
    out = Path(options.out or os.environ.get("OUT") or RESULTS)
    results = read_results(Path(options.results or out))
    sections = _sections(results)
    make_folder(out)
    write_atomic(out / "report.html", _render(results, sections).encode())
    write_atomic(out / "report.png", picture([figure for section in sections for figure in section["figures"]]))
    return out / "report.html"


def _sections(results: Sequence[Result]) -> list[dict]:
    """One for each benchmark: figures, the same figure of several devices side by side, and a table for each file."""
    names = list(dict.fromkeys(result.name for result in results))
    names.sort(key=lambda name: list(SECTIONS).index(name) if name in SECTIONS else len(SECTIONS))
    sections = []
    for name in names:
        own = [result for result in results if result.name == name]
        drawn = [figure for result in own for figure in figures(result)]
        titles = list(dict.fromkeys(figure.title for figure in drawn))
        drawn.sort(key=lambda figure: titles.index(figure.title))
        title, words = SECTIONS.get(name, (name.replace("_", " ").capitalize(), ""))
        tables = [_table(result) for result in own]
        sections.append({"name": name, "title": title, "words": words, "figures": drawn, "tables": tables})
    return sections


def _render(results: Sequence[Result], sections: list[dict]) -> str:
    found = [promise for section in sections for table in section["tables"] for promise in promises(table["result"])]
    return template(Path(__file__).with_name("report.html.j2")).render(
        verdict=verdict(results, found),
        tiles=headlines(results),
        promises=sorted(found, key=lambda promise: promise.held),
        sections=sections,
        several=on_several_devices([figure for section in sections for figure in section["figures"]]),
        number=number,
        share=lambda value, figure: f"{100 * value / figure.end:.2f}",
    )


def verdict(results: Sequence[Result], found: Sequence[Promise]) -> str:
    """What the page says in two sentences: how many bars hold, which do not, and where it was measured."""
    missed = [promise for promise in found if not promise.held]
    places = list(dict.fromkeys(result.where for result in results if result.machine))
    text = f"{len(found) - len(missed)} of {len(found)} promised bars hold" if found else "No file names a bar"
    if missed:
        each = (f"{p.what}, {number(p.value)} instead of {p.sense} {number(p.bar)}" for p in missed)
        text += f"; missed: {'; '.join(each)}"
    text += f". Measured on {', '.join(places)}." if places else "."
    if not any("gpu" in result.machine for result in results):
        text += " No GPU has been measured, so nothing here claims to be fast on one."
    return text


def _table(result: Result) -> dict:
    names = list(dict.fromkeys(name for row in result.rows for name in row))
    numeric = [any(finite(row.get(name)) for row in result.rows) for name in names]
    columns = [{"name": name.replace("_", " "), "numeric": n} for name, n in zip(names, numeric, strict=True)]
    rows = [[_cell(row.get(name)) for name in names] for row in result.rows]
    facts = [f"{name} {value}" for name, value in (result.machine | result.versions).items()]
    return {"result": result, "columns": columns, "rows": rows, "facts": ", ".join(facts)}


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and finite(value):
        return number(value)
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else json.dumps(value)

"""`unstill bench report`: one page and a few pictures of all result files: ours, peers, limits and targets.

It reads the JSON files and nothing else: whoever has them can draw the report again. ``report.html`` needs no other
file, no network and no script; ``report-NAME.png``, one for each of ``section.PICTURES``, are for a README.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline.atomic_files import make_folder, write_atomic
from ...pipeline.pages import template
from ..harness.record import RESULTS
from ..harness.result_files import Result, read_results
from ..harness.row import Row, finite, number
from ..harness.section import PICTURES
from ..suites import sections as suite_sections
from .figures import Target, figures, headlines, of_the_best_device, on_several_devices, targets
from .picture import picture

SAID = 3  # missed targets that the first sentence names
MOST_ROWS = 30  # of a file that a table shows
HIDDEN = ("figure", "label", "group", "role", "detail", "headline", "target")  # of a row: how it is drawn


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Draw the committed results."""

    results: Path | None = None
    """Folder of the result files; by default that of --out."""
    out: Path | None = None
    """Folder for report.html and the pictures; bench/results by default, $OUT when that is set."""


def run(config: ReportOptions) -> Path:
    """Draw the page and the pictures; return the page's path.

    Raises:
        InputError: there are no result files, or one is broken.
    """
    out = Path(config.out or os.environ.get("OUT") or RESULTS)
    results = read_results(Path(config.results or out))
    sections = _sections(results)
    make_folder(out)
    write_atomic(out / "report.html", _render(results, sections).encode())
    for name, title in PICTURES.items():
        own = [figure for section in sections if section["picture"] == name for figure in section["figures"]]
        if main := of_the_best_device([figure for figure in own if figure.chart.main]):
            write_atomic(out / f"report-{name}.png", picture(title, main))
    return out / "report.html"


def render_results(folder: Path) -> str:
    """The page of a folder's result files, as text.

    Raises:
        InputError: there are no result files, or one is broken.
    """
    results = read_results(folder)
    return _render(results, _sections(results))


def _sections(results: Sequence[Result]) -> list[dict]:
    """One for each benchmark: figures, the same figure of several devices side by side, and a table for each file."""
    known = suite_sections()
    names = list(dict.fromkeys(result.name for result in results))
    names.sort(key=lambda name: known[name].order if name in known else 1000)
    sections = []
    for name in names:
        own, section = [result for result in results if result.name == name], known.get(name)
        drawn = [figure for result in own for figure in figures(result, section)]
        titles = list(dict.fromkeys(figure.title for figure in drawn))
        drawn.sort(key=lambda figure: titles.index(figure.title))
        title, text = (section.title, section.text) if section else (name.replace("_", " ").capitalize(), "")
        summaries = [result.summary for result in own if result.summary]
        tables = [_table(result) for result in own]
        found = {"name": name, "title": title, "text": text, "summaries": summaries, "figures": drawn, "tables": tables}
        sections.append(found | {"picture": section.picture if section else ""})
    return sections


def _render(results: Sequence[Result], sections: list[dict]) -> str:
    found = [target for section in sections for table in section["tables"] for target in targets(table["result"])]
    return template(Path(__file__).with_name("report.html.j2")).render(
        files=len(results),
        days=" to ".join(dict.fromkeys(edge(result.date[:10] for result in results) for edge in (min, max))),
        verdict=verdict(results, found),
        tiles=headlines([table["result"] for section in sections for table in section["tables"]]),
        targets=sorted(found, key=lambda target: bool(target.row.met)),
        sections=sections,
        several=on_several_devices([figure for section in sections for figure in section["figures"]]),
        number=number,
        measured=measured,
        share=lambda value, figure: f"{100 * value / figure.end:.2f}",
    )


def verdict(results: Sequence[Result], found: Sequence[Target]) -> str:
    """What the page says in two sentences: how many targets are met, which are not, and where it was measured."""
    missed = [target for target in found if not target.row.met]
    places = list(dict.fromkeys(result.where for result in results if result.machine))
    text = f"{len(found) - len(missed)} of {len(found)} targets are met" if found else "No file names a target"
    if missed:
        said = [f"{t.what}, {measured(t.row)} instead of {t.bound}" for t in missed[:SAID]]
        more = [f"{len(missed) - SAID} more, which are first in the table of targets"] if len(missed) > SAID else []
        text += f"; missed: {'; '.join(said + more)}"
    text += f". Measured on {', '.join(places)}." if places else "."
    if not any("gpu" in result.machine for result in results):
        text += " No GPU has been measured, so nothing here claims to be fast on one."
    return text


def measured(row: Row) -> str:
    """The number, or that there is none."""
    return number(row.value) if finite(row.value) else "not measured"


def _table(result: Result) -> dict:
    every = [{name: v for name, v in row.to_json().items() if name not in HIDDEN} for row in result.rows]
    lines = every[:MOST_ROWS]
    count = Counter(name for line in lines for name in line)
    # what few rows have comes last: cells that would be empty to the end of a row are left out
    names = [name for name, _ in count.most_common()]
    numeric = [any(finite(line.get(name)) for line in lines) for name in names]
    columns = [
        {"name": name.replace("_", " "), "numeric": n, "place": place}
        for place, (name, n) in enumerate(zip(names, numeric, strict=True), 1)
    ]
    rows = [[_cell(line.get(name)) for name in names[: _last(line, names) + 1]] for line in lines]
    facts = [f"{name} {value}" for name, value in (result.machine | result.versions).items()]
    name = "".join(letter if letter.isalnum() else "-" for letter in f"of-{result.file}")
    about = {"result": result, "name": name, "facts": ", ".join(facts), "left_out": len(every) - len(lines)}
    return about | {"columns": columns, "rows": rows}


def _last(line: Mapping[str, Any], names: Sequence[str]) -> int:
    """Place of the last of the names that the line has."""
    return max((place for place, name in enumerate(names) if line.get(name) is not None), default=0)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and finite(value):
        return number(value)
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else json.dumps(value)

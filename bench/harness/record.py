"""Result files: what was measured, with what, where and when.

One file per benchmark and device, ``<out>/<name>-<device>.json``:

    {"name", "command", "commit", "date", "device", "machine": {...}, "versions": {...}, "complete", "summary",
     "rows": [...], "notes": [...]}

Rows are those of ``row.py``. Pictures and tables are drawn from these files alone, so every published number can be
traced to one.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ...pipeline.atomic_files import make_folder, write_atomic
from ...pipeline.source_commit import commit
from .row import Row

RESULTS = Path("bench/results")
PACKAGES = "unstill torch torchvision triton nvidia-dali-cuda130 av webdataset numpy numba torchcodec decord".split()


def device_name() -> str:
    """A short name for file names: the GPU's (``nvidia-h200``), or ``cpu``."""
    import torch  # here and below: who only reads result files waits for no torch

    if not torch.cuda.is_available():
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")


def machine() -> dict[str, str | int]:
    """Processor, cores, memory and, where there is one, the GPU and its driver."""
    import torch

    facts: dict[str, str | int] = {"cpu": _cpu_model(), "cores": os.cpu_count() or 1, "system": platform.platform()}
    if hasattr(os, "sysconf"):
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30), "driver": _driver()}
    return facts


def versions() -> dict[str, str]:
    """Versions of Python and of every package that a result may depend on."""
    import torch

    found = {"python": platform.python_version(), "cuda": torch.version.cuda or "none"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def this_command() -> str:
    """The command line that is running, the program by its name alone."""
    program = Path(sys.argv[0]).name
    return shlex.join(["unstill" if program == "-c" else program, *sys.argv[1:]])


def quantiles(samples: Sequence[float]) -> dict[str, float]:
    """p20, p50 and p80 of repeated measurements."""
    low, middle, high = np.quantile(np.asarray(samples, dtype=np.float64), [0.2, 0.5, 0.8])
    return {"p20": float(low), "p50": float(middle), "p80": float(high)}


def spread(quantiles: Mapping[str, float]) -> dict[str, Any]:
    """The same as fields of a ``Row``: the median is its value; percentiles that are equal are left out."""
    ends = {name: quantiles[name] for name in ("p20", "p80")} if quantiles["p20"] < quantiles["p80"] else {}
    return {"value": quantiles["p50"], **ends}


class ResultFile:
    """The result file of a benchmark that is running: written anew with every row, so that one that is cut off keeps
    what it has.

    Args:
        name: the benchmark: ``kernels``, ``loader``, ``step``, ...
        out: folder; ``bench/results`` by default, ``$OUT`` when that is set.
        notes: sentences a reader needs: how to read a number, what was left out and why.
        file_name: another name for the file, where results do not depend on the device.
        device: what the rows are of, where that is not this machine's device.
    """

    def __init__(
        self,
        name: str,
        *,
        out: Path | None = None,
        notes: Sequence[str] = (),
        file_name: str | None = None,
        device: str | None = None,
    ):
        self.device = device or device_name()
        self.path = Path(out or os.environ.get("OUT") or RESULTS) / (file_name or f"{name}-{self.device}.json")
        self.rows: list[Row] = []
        self.notes = list(notes)
        self._fixed = {"name": name, "command": this_command(), "commit": commit()}
        self._facts = {"device": self.device, "machine": machine(), "versions": versions()}
        make_folder(self.path.parent)

    def add(self, *rows: Row) -> None:
        """Add rows, and write the file."""
        self.rows += rows
        self._write(complete=False)

    def replace(self, start: int, *rows: Row) -> None:
        """Put rows in the place of those from ``start`` on, and write the file: more is known of the same."""
        self.rows[start:] = rows
        self._write(complete=False)

    def note(self, sentence: str) -> None:
        """Add a sentence; it is written with the next row."""
        self.notes.append(sentence)

    def finish(self, summary: str = "") -> Path:
        """Mark the file complete, with what it all amounts to in a sentence or two; returns its path."""
        self._write(complete=True, summary=summary)
        return self.path

    def show(self, title: str, columns: Sequence[str] = ()) -> None:
        """Print the rows; ``columns`` of their facts, by default all."""
        show(title, [shown(row, columns) for row in self.rows], notes=self.notes)

    def _write(self, *, complete: bool, summary: str = "") -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        said = {"complete": complete} | ({"summary": summary} if summary else {})
        rows = {"rows": [row.to_json() for row in self.rows], "notes": self.notes}
        write_atomic(self.path, in_lines(self._fixed | {"date": now} | self._facts | said | rows).encode())


def _seven_digits(value: Any) -> Any:
    """Numbers as far as a measurement can tell; they come with 17 digits."""
    if isinstance(value, float) and np.isfinite(value):
        return float(f"{value:.7g}")
    if isinstance(value, Mapping):
        return {name: _seven_digits(each) for name, each in value.items()}
    return [_seven_digits(each) for each in value] if isinstance(value, (list, tuple)) else value


def in_lines(contents: dict[str, Any]) -> str:
    """JSON with a line for each row: a fifth smaller than with one for each value, and a row is still one change."""
    head = json.dumps(contents | {"rows": []}, indent=1)
    lines = ",\n  ".join(json.dumps(_seven_digits(row)) for row in contents["rows"])
    return head.replace('"rows": []', f'"rows": [\n  {lines}\n ]' if lines else '"rows": []', 1) + "\n"


def shown(row: Row, columns: Sequence[str] = ()) -> dict[str, object]:
    """A row as a line of a table: what was measured, the number, its target, and facts."""
    line: dict[str, object] = {"what": row.title, "p20": row.p20, "value": row.value, "p80": row.p80, "unit": row.unit}
    if row.met is not None:
        bound, value = ("at least", row.at_least) if row.at_least is not None else ("at most", row.at_most)
        line |= {"target": f"{bound} {value:g}", "met": "yes" if row.met else "NO"}
    facts = {name: value for name, value in row.facts.items() if not columns or name in columns}
    return {name: value for name, value in line.items() if value not in (None, "")} | facts


def show(title: str, rows: Sequence[Mapping[str, object]], *, notes: Sequence[str] = ()) -> None:
    """Print rows as a table; columns in the order in which they first appear."""
    console = Console()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = any(isinstance(row.get(column), (int, float)) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    if console.measure(table, options=console.options.update(width=1 << 20)).maximum <= console.width:
        console.print(table)
    else:  # cells of several lines, and numbers cut off, would be all that is left of a table
        console.print(title, style="italic")
        for row in rows:
            _show_below(console, row)
    for note in notes:
        console.print(note, style="dim")


def _show_below(console: Console, row: Mapping[str, object]) -> None:
    """A row as a heading and its values below it, as many to a line as there is room for."""
    name, *rest = [(key.replace("_", " "), _cell(value)) for key, value in row.items() if value is not None]
    console.print(name[1], style="bold", markup=False, highlight=False)
    values = "; ".join(f"{key} {value}".replace(" ", "\u00a0") for key, value in rest)  # no pair is torn apart
    for line in textwrap.wrap(values, console.width - 2, break_long_words=False, break_on_hyphens=False):
        console.print("  " + line.replace("\u00a0", " "), markup=False, highlight=False, soft_wrap=True)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _cpu_model() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

"""Result files: what was measured, with what, where and when.

One file per benchmark and device, ``<out>/<name>-<device>.json``:

    {"name", "command", "commit", "date", "device", "machine": {...}, "versions": {...}, "rows": [...], "notes": [...]}

A row is a flat dictionary; timed rows carry ``p20``/``p50``/``p80`` and ``unit``. Pictures and tables are drawn from
these files alone, so every published number can be traced to one.
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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path("bench/results")
PACKAGES = "unstill torch torchvision triton nvidia-dali-cuda130 av webdataset numpy torchcodec decord".split()


def device_name() -> str:
    """A short name for file names: the GPU's (``nvidia-h200``), or ``cpu``."""
    if not torch.cuda.is_available():
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")


def machine() -> dict[str, str | int]:
    """Processor, cores, memory and, where there is one, the GPU and its driver."""
    facts: dict[str, str | int] = {"cpu": _cpu_model(), "cores": os.cpu_count() or 1, "system": platform.platform()}
    if hasattr(os, "sysconf"):
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30), "driver": _driver()}
    return facts


def versions() -> dict[str, str]:
    """Versions of Python and of every package that a result may depend on."""
    found = {"python": platform.python_version(), "cuda": torch.version.cuda or "none"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, with ``+`` when tracked files differ (results do not count); ``unknown`` without."""
    root = Path(__file__).parent
    run = lambda *args: subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False)  # noqa: E731
    head = run("rev-parse", "--short=12", "HEAD")
    if head.returncode != 0:
        return "unknown"
    code = (":/", ":(top,exclude)bench/results")
    dirty = run("status", "--porcelain", "--untracked-files=no", "--", *code).stdout.strip()
    return head.stdout.strip() + ("+" if dirty else "")


def this_command() -> str:
    """The command line that is running, the program by its name alone."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def quantiles(samples: Sequence[float]) -> dict[str, float]:
    """p20, p50 and p80 of repeated measurements."""
    low, middle, high = np.quantile(np.asarray(samples, dtype=np.float64), [0.2, 0.5, 0.8])
    return {"p20": float(low), "p50": float(middle), "p80": float(high)}


def record(
    name: str,
    rows: Sequence[Mapping[str, object]],
    *,
    out: Path | None = None,
    command: str | None = None,
    notes: Sequence[str] = (),
    file_name: str | None = None,
) -> Path:
    """Write ``rows`` to ``<out>/<name>-<device>.json`` and return the path.

    Args:
        name: the benchmark: ``kernels``, ``loader``, ``step``, ...
        rows: what was measured, one flat dictionary each.
        out: folder; ``bench/results`` by default, ``$OUT`` when that is set.
        command: how to repeat it; the running command line by default.
        notes: sentences a reader needs: what was skipped and why, how to read a number.
        file_name: another name for the file, where results do not depend on the device.
    """
    out = Path(out or os.environ.get("OUT") or RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    path = out / (file_name or f"{name}-{device_name()}.json")
    content = {
        "name": name,
        "command": command or this_command(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device_name(),
        "machine": machine(),
        "versions": versions(),
        "rows": list(rows),
        "notes": list(notes),
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


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
    console.print(table)
    for note in notes:
        console.print(note, style="dim")


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

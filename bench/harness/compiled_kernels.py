"""The report of the ahead-of-time compilation for sm_90 as a result file: registers, spilled bytes, shared memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

from .record import ResultFile, show
from .row import Row

AOT_FILE = "kernels_sm90.json"
ATTENTION = "attention_"  # what the names of its kernels start with
MOST_REGISTERS = 64  # up to it a multiprocessor holds four programs of 256 threads


def aot_rows() -> list[dict]:
    """The report of ``unstill.kernels.aot``, from a process of its own: it must not run under Triton's interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "unstill.kernels.aot"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def aot_summary(rows: list[dict]) -> list[Row]:
    """One row per kernel: the configuration that needs most registers; and what all of them spill."""
    found = []
    for kernel in dict.fromkeys(row["kernel"] for row in rows):
        own = [row for row in rows if row["kernel"] == kernel]
        attention = kernel.startswith(ATTENTION)
        shared = max(row["shared_bytes"] for row in own)
        found.append(
            Row(
                title=f"registers of {kernel}",
                value=max(row["registers"] for row in own),
                unit="registers a thread",
                better="lower",
                at_most=None if attention else MOST_REGISTERS,
                target="" if attention else "registers of the compiled kernels",
                figure="attention-registers" if attention else "registers",
                label=kernel,
                detail=f"{len(own)} configurations, {_spilled(own)} bytes spilled, {shared / 1024:.0f} KiB shared",
                facts={"configurations": len(own), "spilled_bytes": _spilled(own), "shared_bytes": shared},
            )
        )
    spilled = Row(title="bytes spilled by the compiled kernels", value=_spilled(rows), unit="bytes", at_most=0)
    return [*found, spilled]


def _spilled(rows: list[dict]) -> int:
    return max(row["spill_store_bytes"] + row["spill_load_bytes"] for row in rows)


def write_aot(rows: list[dict], out: Path | None) -> Path:
    """Write the report of the compiler: a row a kernel, then a row a configuration with all that it said."""
    notes = ["registers per thread and spilled bytes from ptxas; shared memory and the widest store from the PTX"]
    results = ResultFile(
        "kernels_sm90", out=out, notes=notes, file_name=AOT_FILE, device="sm_90, compiled ahead of time, not run"
    )
    summary = aot_summary(rows)
    results.add(*summary, *(Row(title=f"{row['kernel']}, one configuration", facts=row) for row in rows))
    show("compiled ahead of time for sm_90: not a measurement of speed", [row.to_json() for row in summary])
    return results.finish()

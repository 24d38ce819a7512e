"""``unstill transfer``: what it prints; the exit code is returned."""

import json
from dataclasses import asdict
from importlib.metadata import version

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...pipeline.atomic_files import make_folder, write_atomic
from ...pipeline.safe_text import printable
from ..downstream.transfer.config import TransferConfig


def transfer(config: TransferConfig) -> int:
    """``unstill transfer``."""
    from ..downstream.transfer.evaluation import run_transfer

    results = run_transfer(config)
    what = "fine-tuned" if config.fine_tuned else "a linear layer on frozen features"
    table = Table(title=f"Top-1 accuracy in percent, {what}")
    for name in ("", *(f"split {n}" for n in range(1, len(config.test) + 1)), "mean"):
        table.add_column(name, justify="right" if name else "left")
    for number, result in enumerate(results):
        table.add_row(escape(printable(result.name)), *(f"{100 * a:.1f}" for a in (*result.accuracy, result.mean)))
        if number:
            first = results[0]
            pairs = zip((*result.accuracy, result.mean), (*first.accuracy, first.mean), strict=True)
            table.add_row("  minus the first", *(f"{100 * (a - b):+.1f}" for a, b in pairs))
    Console().print(table)
    if config.out is not None:
        record = {
            "results": [
                {"name": r.name, "accuracy": r.accuracy, "penalty": r.penalty, "mean": r.mean} for r in results
            ],
            "options": {name: str(value) for name, value in asdict(config).items()},
            "unstill": version("unstill"),
        }
        make_folder(config.out.parent)
        write_atomic(config.out, (json.dumps(record, indent=1) + "\n").encode())
        print(f"written: {config.out}")
    return 0

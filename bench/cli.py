"""``unstill bench NAME``: one benchmark, or all; each is a file of suites/ with an options dataclass and ``run``."""

import importlib
import typing

from rich.console import Console
from rich.table import Table

from ..pipeline.errors import InputError
from ..trainer.cli.help_texts import parse
from ..trainer.cli.suggestions import unknown
from . import suites

REPORT = "One page and a few pictures of all result files."


def main(arguments: list[str]) -> int:
    """Read ``NAME [--option value ...]`` and run it; ``all`` runs every one with its defaults, and draws the report.

    Raises:
        InputError: no benchmark has that name.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_benches()
        return 0
    name, *rest = arguments
    known = [*suites.names(), "report"]
    if name == "all":
        for each in known:
            _run(each, rest)
        return 0
    if name not in known:
        raise InputError(unknown("benchmark", name, [*known, "all"], "unstill bench"))
    _run(name, rest)
    return 0


def _run(name: str, arguments: list[str]) -> None:
    # imported only now: most of them import torch
    module = importlib.import_module(".report.page", __package__) if name == "report" else suites.load(name)
    options = typing.get_type_hints(module.run)["config"]
    print(f"written: {module.run(parse(options, prog=f'unstill bench {name}', args=arguments))}")


def _print_benches() -> None:
    console = Console()
    console.print("usage: unstill bench NAME [--option value ...]\n", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name in suites.names():
        table.add_row(name, suites.summary(name))
    table.add_row("report", REPORT)
    table.add_row("all", "All of them, one after another.")
    console.print(table)
    console.print("\nResults: <out>/<name>-<device>.json, by default in bench/results.")

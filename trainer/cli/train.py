"""``unstill train``: a recipe, changed by options, trained."""

import inspect
from collections.abc import Callable

import tyro
from rich.console import Console
from rich.pretty import pretty_repr
from rich.table import Table

from ...pipeline.errors import InputError
from ..config import TrainConfig
from ..recipes import RECIPES
from .suggestions import unknown


def run(arguments: list[str]) -> int:
    """``unstill train RECIPE [--option value ...]``; 75 when the run was preempted and saved."""
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_recipes()
        return 0
    name, *rest = arguments
    if name not in RECIPES:
        raise InputError(unknown("recipe", name, RECIPES, "unstill train"))
    config = tyro.cli(
        tyro.conf.AvoidSubcommands[TrainConfig],  # the recipe chooses the method; its options are flags like the rest
        default=RECIPES[name](),
        prog=f"unstill train {name}",
        description=_text(RECIPES[name]),
        args=rest,
    )
    # after the options: `unstill train RECIPE --help` need not wait for torch
    from ..checkpoints.preemption import EXIT_CODE, Preempted
    from ..train import train

    terminal = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    terminal.print(pretty_repr(config, max_width=110))
    try:
        result = train(config)
    except Preempted as stop:
        terminal.print(f"unstill train: stopped and saved at step {stop.step}; the same command continues")
        return EXIT_CODE
    print(f"{result.checkpoint}: {result.steps} steps in all, {result.seconds:.0f} s now; metrics: {result.metrics}")
    return 0


def _print_recipes() -> None:
    console = Console()
    console.print("usage: unstill train RECIPE [--option value ...]\n", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, recipe in RECIPES.items():
        table.add_row(name, _text(recipe).split("\n")[0])
    console.print(table)
    console.print("\nunstill train RECIPE --help shows every option with the recipe's value.")


def _text(recipe: Callable[[], TrainConfig]) -> str:
    """What the recipe says of itself, for a terminal."""
    return (inspect.getdoc(recipe) or "").replace("``", "`")

"""``unstill train``: a recipe, changed by options, trained."""

import contextlib
import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable

import tyro
from rich.console import Console
from rich.table import Table

from ...pipeline.errors import InputError
from ..config import TrainConfig, to_dict
from ..recipes import RECIPES
from .help_texts import parse
from .recipe_words import by_data, in_one_line
from .suggestions import unknown


def run(arguments: list[str]) -> int:
    """``unstill train RECIPE [--option value ...]``; 75 when the run was stopped and saved.

    ``--print-config`` prints the configuration as config.json has it, and trains nothing.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_recipes()
        return 0
    show_config = "--print-config" in arguments
    name, *rest = arguments = [argument for argument in arguments if argument != "--print-config"]
    if name not in RECIPES:
        raise InputError(unknown("recipe", name, RECIPES, "unstill train"))
    recipe = RECIPES[name]
    config = parse(
        tyro.conf.AvoidSubcommands[TrainConfig],  # the recipe chooses the method; its options are flags like the rest
        default=recipe(),
        prog=f"unstill train {name}",
        description=f"{in_one_line(recipe)}\n\n{_text(recipe)}",
        args=rest,
    )
    if show_config:
        print(json.dumps(to_dict(config), indent=1))
        return 0
    # after the options: `unstill train RECIPE --help` need not wait for torch
    from ..checkpoints.files import pointed
    from ..checkpoints.preemption import EXIT_CODE, Preempted
    from ..train import train

    first = os.environ.get("RANK", "0") == "0"  # of several processes one talks
    try:
        result = train(config)
    except Preempted as stop:
        with contextlib.suppress(OSError):  # the terminal may be gone
            if first:
                print(f"unstill train: stopped and saved at step {stop.step}; {go_on(arguments)}", file=sys.stderr)
        return EXIT_CODE
    if not first:
        return 0
    print(f"{result.checkpoint}: {result.steps} steps in all, {result.seconds:.0f} s now; metrics: {result.metrics}")
    best = pointed(config.out / "checkpoints", "best")
    chosen, test = (config.out, "DATASET") if best is None else (config.out / "best", str(config.validation))
    print(f"next: unstill evaluate {shlex.quote(str(chosen))} --iid {shlex.quote(test)}")
    return 0


def go_on(arguments: list[str]) -> str:
    """How a stopped run is continued: the command, where it was given on a command line of its own."""
    if "WORLD_SIZE" in os.environ:
        return "the same command continues"
    return f"to continue: unstill train {shlex.join(arguments)}"


def _print_recipes() -> None:
    console = Console()
    console.print("usage: unstill train RECIPE [--option value ...]\n", markup=False)
    width = max(map(len, RECIPES))
    for title, names in by_data(RECIPES).items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
        table.title_style = "bold"
        table.add_column(width=width)
        for name in names:
            table.add_row(name, _text(RECIPES[name]).split("\n")[0])
        console.print(table)
        console.print()
    console.print(
        "unstill train RECIPE --help shows every option with the recipe's value; --print-config prints them all."
    )


def _text(recipe: Callable[[], TrainConfig]) -> str:
    """What the recipe says of itself, for a terminal."""
    return (inspect.getdoc(recipe) or "").replace("``", "`")

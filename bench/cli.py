"""``unstill bench NAME``: one benchmark, or all; each is a module here with an options dataclass and ``run``."""

import importlib
from collections.abc import Callable

import tyro
from rich.console import Console
from rich.table import Table

from ..pipeline.errors import InputError

# name -> (module, options, what it measures)
BENCHES = {
    "convert": (
        "convert",
        "ConvertBench",
        "Videos to shards, beside the ffmpeg command line.",
    ),
    "loader": ("loader", "LoaderBench", "Clips per second beside other loaders, on the same videos."),
    "kernels": (
        "kernels",
        "KernelsBench",
        "The Triton kernels beside torch and the memory's limit.",
    ),
    "step": ("step", "StepBench", "The compiled ALBAR step beside eager, the official arithmetic and cross entropy."),
    "recipes": ("recipe_cost", "RecipeBench", "Time and memory of a step of each published recipe."),
    "train": (
        "train",
        "TrainBench",
        "Training end to end: the real loader beside an ideal one.",
    ),
    "roofline": (
        "roofline",
        "RooflineBench",
        "Every stage of the pipeline beside this machine's limits, and which one holds it up.",
    ),
    "demo": ("demo", "DemoBench", "The demonstration for three seeds, held against its bars."),
    "bias": ("bias", "BiasBench", "Every method on the procedural dataset: the table of the literature."),
    "growth": ("growth", "GrowthBench", "Start-up time and memory against the number of samples, to ten million."),
    "report": ("report", "ReportOptions", "One page and one picture of all result files."),
}


def main(arguments: list[str]) -> int:
    """Read ``NAME [--option value ...]`` and run it; ``all`` runs every one with its defaults."""
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_benches()
        return 0
    name, *rest = arguments
    if name == "all":
        for each in BENCHES:
            _run(each, rest)
        return 0
    if name not in BENCHES:
        raise InputError(f"no benchmark named {name!r}; expected one of: {', '.join(BENCHES)}, all")
    _run(name, rest)
    return 0


def _run(name: str, arguments: list[str]) -> None:
    module_name, options_name, _ = BENCHES[name]
    module = importlib.import_module(f".{module_name}", __package__)
    options = tyro.cli(getattr(module, options_name), prog=f"unstill bench {name}", args=arguments)
    run: Callable = module.run
    print(f"written: {run(options)}")


def _print_benches() -> None:
    console = Console()
    console.print("usage: unstill bench NAME [--option value ...]\n", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, (_, _, summary) in BENCHES.items():
        table.add_row(name, summary)
    table.add_row("all", "All of them, one after another.")
    console.print(table)
    console.print("\nResults: <out>/<name>-<device>.json, by default in bench/results.")

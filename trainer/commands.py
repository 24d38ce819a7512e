"""What each command of the command line does with its options: call the library, print what a person wants to know.

A function here returns the process's exit code. Imports of what a command needs are inside it, so that another command
does not wait for them.
"""

import inspect
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.pretty import pretty_repr
from rich.table import Table

from ..pipeline.convert import ConvertConfig
from ..pipeline.errors import InputError
from .demo import DemoConfig
from .evaluate import EvaluateOptions, TestSets


def demo(options: DemoConfig) -> int:
    """``unstill demo``."""
    from .demo import demo

    demo(options)
    return 0


def convert(options: ConvertConfig) -> int:
    """``unstill convert``; 0 also when videos were quarantined, for the report names every one."""
    from ..pipeline.convert import convert

    report = convert(options)
    print(
        f"{report.out}: {report.planned} planned = {report.converted} converted + {report.quarantined} quarantined; "
        f"{report.shards} shards, {report.bytes / 1e6:,.1f} MB, {report.seconds:.1f} s"
    )
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1]):
        print(f"  {count} quarantined: {reason}")
    if report.quarantined:
        print(f"  each one with its reason: {report.out / 'quarantine.csv'}")
    return 0


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Check a converted dataset, or one shard: structure, checksums, fragment tables, and that every frame decodes."""

    path: Annotated[Path, tyro.conf.Positional]
    """Dataset folder, or one .tar file."""
    decode: bool = True
    """Decode every frame too; without it only bytes are checked."""
    workers: int = 0
    """Processes; 0 is one for every core."""


def verify(options: VerifyOptions) -> int:
    """``unstill verify``; 1 when there are faults."""
    from ..pipeline.verify import verify

    faults = verify(options.path, decode=options.decode, workers=options.workers)
    for fault in faults:
        print(fault)
    print(f"{options.path}: {f'{len(faults)} faults' if faults else 'no fault found'}")
    return 1 if faults else 0


def train(arguments: list[str]) -> int:
    """``unstill train RECIPE [--option value ...]``; 75 when the run was preempted and saved."""
    from . import loop
    from .config import TrainConfig
    from .preemption import Preempted
    from .recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        _print_recipes()
        return 0
    name, *rest = arguments
    if name not in RECIPES:
        raise InputError(f"no recipe named {name!r}; expected one of: {', '.join(RECIPES)}")
    config = tyro.cli(
        tyro.conf.AvoidSubcommands[TrainConfig],  # the recipe chooses the method; its options are flags like the rest
        default=RECIPES[name](),
        prog=f"unstill train {name}",
        description=inspect.getdoc(RECIPES[name]),
        args=rest,
    )
    terminal = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    terminal.print(pretty_repr(config, max_width=110))
    try:
        result = loop.train(config)
    except Preempted as stop:
        terminal.print(f"unstill train: stopped and saved at step {stop.step}; the same command continues")
        return int(stop.code)
    print(f"{result.checkpoint}: {result.steps} steps in all, {result.seconds:.0f} s now; metrics: {result.metrics}")
    return 0


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Accuracy and static bias of one or more trained models, on the sets that you name.

    SCUFO, its shaken form, reversed and shuffled clips are made from the SCUBA and IID sets while decoding.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders or checkpoints; each model is called as its folder is."""
    sets: Annotated[TestSets, tyro.conf.OmitArgPrefixes] = field(default_factory=TestSets)
    """What to test on."""
    options: Annotated[EvaluateOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=EvaluateOptions)
    """How to run the models."""
    out: Path | None = None
    """Folder for evaluation.json and the predictions; by default nothing is written."""


def evaluate(command: EvaluateCommand) -> int:
    """``unstill evaluate``."""
    from .evaluate import evaluate, load_subject
    from .scorecard import MEASURES

    if not command.runs:
        raise InputError("no model given; expected one or more run folders")
    results = evaluate([load_subject(run) for run in command.runs], command.sets, command.options)
    views, clip_rule = command.options.views, "as each run was trained"
    table = Table(title="Accuracy in percent, 95 % interval", title_justify="left")
    table.add_column("measure")
    for name in results:
        table.add_column(name, justify="right")
    for measure in next(iter(results.values())).card.shares:
        known = MEASURES.get(measure.partition(".")[0])
        arrow = {"higher": " ↑", "lower": " ↓"}.get(known.better, "") if known else ""
        title = (known.title + measure[len(measure.partition(".")[0]) :] if known else measure) + arrow
        shares = [result.card.shares[measure] for result in results.values()]
        table.add_row(title, *(f"{s.value:.1f} [{s.low:.1f}, {s.high:.1f}]" for s in shares))
    Console().print(table)
    print(f"views: {views}; short videos: {clip_rule}")
    if command.out is not None:
        _write_evaluation(command.out, results)
        print(f"written: {command.out / 'evaluation.json'} and the predictions beside it")
    return 0


def _write_evaluation(out: Path, results: dict) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        for test, predictions in result.predictions.items():
            predictions.save(out / f"{name}.{test}.npz")
    plain = {
        name: {
            "shares": {measure: asdict(share) for measure, share in result.card.shares.items()},
            "per_class": result.card.per_class,
        }
        for name, result in results.items()
    }
    (out / "evaluation.json").write_text(json.dumps(plain, indent=1) + "\n")


def _print_recipes() -> None:
    from .recipes import RECIPES

    console = Console()
    console.print("usage: unstill train RECIPE [--option value ...]\n", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, recipe in RECIPES.items():
        table.add_row(name, (recipe.__doc__ or "").split("\n")[0])
    console.print(table)
    console.print("\nunstill train RECIPE --help shows every option with the recipe's value.")

"""What each command of the command line does with its options: call the library, print what a person wants to know.

A function here returns the process's exit code. What needs torch or DALI is imported inside it: loading those takes
seconds, which `unstill audit` and `unstill convert` need not wait for. Commands about trained models are in
`evaluation/command.py`, `inference/command.py` and `diagnostics/commands.py`.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.pretty import pretty_repr
from rich.table import Table

from ...pipeline.conversion.audit import AuditConfig
from ...pipeline.conversion.convert import ConvertConfig
from ...pipeline.errors import InputError

if TYPE_CHECKING:
    from ..demo.run import DemoConfig


def demo(options: "DemoConfig") -> int:
    """``unstill demo``."""
    from ..demo.run import demo

    demo(options)
    return 0


def convert(options: ConvertConfig) -> int:
    """``unstill convert``; 0 also when videos were quarantined, for the report names every one."""
    from ...pipeline.conversion.convert import convert

    report = convert(options)
    print(
        f"{report.out}: {report.planned} planned = {report.converted} converted + {report.quarantined} quarantined; "
        f"{report.shards} shards, {report.bytes / 1e6:,.1f} MB, {report.seconds:.1f} s"
    )
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1]):
        print(f"  {count} quarantined: {reason}")
    if report.quarantined:
        print(f"  each one with its reason: {report.out}/quarantine.csv")
    for note, count in report.notes.items():
        print(f"  {count} {note}")
    for why, count, first in report.overlooked:
        print(f"  {count} files not looked at: {why}, for example {first!r}")
    for keys in report.same_content["in_several_classes"][:8]:
        print(f"  the same bytes in several classes: {', '.join(keys)}")
    for warning in report.warnings:
        print(f"  warning: {warning}")
    if report.complete:
        print(f"look at {report.out}/stats.html; then: unstill train RECIPE --data {report.out} --out runs/NAME")
    else:
        print("other shards are still to be made; the job that makes the last one merges them")
    return 0


def audit(options: AuditConfig) -> int:
    """``unstill audit``; 1 when ``convert`` would refuse the source."""
    from ...pipeline.conversion.audit import audit, render

    report = audit(options)
    Console().print(render(report))
    return 1 if report.problem else 0


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
    from ...pipeline.conversion.verify import verify

    faults = verify(options.path, decode=options.decode, workers=options.workers)
    for fault in faults:
        print(fault)
    print(f"{options.path}: {f'{len(faults)} faults' if faults else 'no fault found'}")
    return 1 if faults else 0


def ood(arguments: list[str]) -> int:
    """``unstill ood build SOURCE MASKS OUT`` and ``unstill ood check SOURCE MASKS LIST``."""
    from ...pipeline.ood.build import OodConfig, build

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: unstill ood build SOURCE MASKS OUT [--option value ...]")
        print("       unstill ood check SOURCE MASKS LIST [--option value ...]\n")
        print("build: cut the people out of test videos and put them before other backgrounds.")
        print("check: measure the masks first, and list the videos to look at.")
        print("unstill ood build --help shows every option.")
        return 0
    action, *rest = arguments
    if action == "check":
        return _check_masks(rest)
    if action != "build":
        raise InputError(f"no action named {action!r}; expected: unstill ood build SOURCE MASKS OUT, or check")
    report = build(tyro.cli(OodConfig, prog="unstill ood build", args=rest))
    print(f"{report.videos}: {report.composites} videos; {len(report.left_out)} source videos left out")
    for path, reason in list(report.left_out.items())[:10]:
        print(f"  {path}: {reason}")
    if len(report.left_out) > 10:
        print(f"  and {len(report.left_out) - 10} more: {report.videos.parent / 'left_out.csv'}")
    if report.shards is None:
        print(f"next: unstill convert {report.videos} DATASET --classes TRAIN/dataset.json --allow-missing,")
    if (truth := report.videos.parent / "truth.csv").exists():
        print(f"then: unstill evaluate RUN --conflfg {report.shards or 'DATASET'} --conflfg-truth {truth}")
    else:
        print(f"then: unstill evaluate RUN --scuba NAME {report.shards or 'DATASET'}")
    return 0


def _check_masks(arguments: list[str]) -> int:
    from ...pipeline.ood.mask_check import MaskCheckConfig, check_masks, mean_leak

    config = tyro.cli(MaskCheckConfig, prog="unstill ood check", args=arguments)
    found = check_masks(config)
    flagged = sum(isinstance(quality, str) or bool(quality.flags) for quality in found.values())
    print(f"{config.out}: {flagged} of {len(found)} videos to look at, listed first")
    if config.boxes is not None:
        print(f"the boxes let background through: {100 * mean_leak(found):.1f} % of their pixels on average")
    return 0


def train(arguments: list[str]) -> int:
    """``unstill train RECIPE [--option value ...]``; 75 when the run was preempted and saved."""
    from ...trainer import train as loop
    from ..checkpoints.preemption import Preempted
    from ..config import TrainConfig
    from ..recipes import RECIPES

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


def _print_recipes() -> None:
    from ..recipes import RECIPES

    console = Console()
    console.print("usage: unstill train RECIPE [--option value ...]\n", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, recipe in RECIPES.items():
        table.add_row(name, (recipe.__doc__ or "").split("\n")[0])
    console.print(table)
    console.print("\nunstill train RECIPE --help shows every option with the recipe's value.")

"""What each command of the command line does with its options: call the library, print what a person wants to know.

A function here returns the process's exit code. Imports of what a command needs are inside it, so that another command
does not wait for them.
"""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.pretty import pretty_repr
from rich.table import Table

from ..pipeline.conversion.audit import AuditConfig
from ..pipeline.conversion.convert import ConvertConfig
from ..pipeline.errors import InputError
from .demo.demo import DemoConfig
from .evaluation.evaluate import EvaluateOptions, TestSets
from .evaluation.predictions import Predictions
from .evaluation.scorecard import Scorecard
from .inference.export import ExportConfig
from .inference.predict import PredictConfig


def demo(options: DemoConfig) -> int:
    """``unstill demo``."""
    from .demo.demo import demo

    demo(options)
    return 0


def convert(options: ConvertConfig) -> int:
    """``unstill convert``; 0 also when videos were quarantined, for the report names every one."""
    from ..pipeline.conversion.convert import convert

    report = convert(options)
    print(
        f"{report.out}: {report.planned} planned = {report.converted} converted + {report.quarantined} quarantined; "
        f"{report.shards} shards, {report.bytes / 1e6:,.1f} MB, {report.seconds:.1f} s"
    )
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1]):
        print(f"  {count} quarantined: {reason}")
    if report.quarantined:
        print(f"  each one with its reason: {report.out}/quarantine.csv")
    return 0


def audit(options: AuditConfig) -> int:
    """``unstill audit``; 1 when ``convert`` would refuse the source."""
    from ..pipeline.conversion.audit import audit, render

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
    from ..pipeline.conversion.verify import verify

    faults = verify(options.path, decode=options.decode, workers=options.workers)
    for fault in faults:
        print(fault)
    print(f"{options.path}: {f'{len(faults)} faults' if faults else 'no fault found'}")
    return 1 if faults else 0


def ood(arguments: list[str]) -> int:
    """``unstill ood build SOURCE MASKS OUT`` and ``unstill ood check SOURCE MASKS LIST``."""
    from ..pipeline.ood.build import OodConfig, build

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
    from ..pipeline.ood.mask_check import MaskCheckConfig, check_masks, mean_leak

    config = tyro.cli(MaskCheckConfig, prog="unstill ood check", args=arguments)
    found = check_masks(config)
    flagged = sum(quality is None or bool(quality.flags) for quality in found.values())
    print(f"{config.out}: {flagged} of {len(found)} videos to look at, listed first")
    if config.boxes is not None:
        print(f"the boxes let background through: {100 * mean_leak(found):.1f} % of their pixels on average")
    return 0


def train(arguments: list[str]) -> int:
    """``unstill train RECIPE [--option value ...]``; 75 when the run was preempted and saved."""
    from . import loop
    from .checkpoints.preemption import Preempted
    from .config import TrainConfig
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

    SCUFO, its shaken form, reversed and shuffled clips are made from the SCUBA and IID sets while decoding. Runs that
    are called NAME_seed0, NAME_seed1, ... are also summarised as mean and standard deviation.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders or checkpoints; each model is called as its folder is."""
    logits: Path | None = None
    """Instead of models: a folder with saved logits of any framework, files MODEL.SET.npz or .csv, where SET is iid,
    scuba.BACKGROUND, scufo.BACKGROUND, conflfg, ... Sets that pair are joined by key; views and the like are printed
    from facts.json there."""
    sets: Annotated[TestSets, tyro.conf.arg(name="")] = field(default_factory=TestSets)
    """What to test on."""
    run: Annotated[EvaluateOptions, tyro.conf.arg(name="")] = field(default_factory=EvaluateOptions)
    """How to run the models."""
    out: Path | None = None
    """Folder for evaluation.json, .csv, .tex, .html and the predictions; by default nothing is written."""


def evaluate(command: EvaluateCommand) -> int:
    """``unstill evaluate``."""
    from .evaluation.evaluate import evaluate, load_subject
    from .evaluation.files import read_facts, read_logits, write_evaluation

    if (command.logits is None) == (not command.runs):
        raise InputError("give either run folders, or --logits with a folder of saved predictions")
    if command.logits is not None:
        predictions = read_logits(command.logits)
        cards = {name: _score(command.sets, found) for name, found in predictions.items()}
        facts = read_facts(command.logits) | {"logits": str(command.logits)}
    else:
        subjects = [load_subject(run) for run in command.runs]
        results = evaluate(subjects, command.sets, command.run)
        cards = {name: result.card for name, result in results.items()}
        predictions = {name: result.predictions for name, result in results.items()}
        views = command.run.views
        facts = {
            "views": f"{views.temporal} x {views.spatial}, {views.anchor}, crop {views.crop_share:g} of the short side",
            "short videos": ", ".join(f"{s.name}: {s.clip.short_video}" for s in subjects),
            "seed": str(command.run.seed),
        }
    _print_scores(cards, facts)
    if command.out is not None:
        write_evaluation(command.out, cards, predictions, facts)
        print(f"written: {command.out / 'evaluation.html'}, .json, .csv, .tex and the predictions")
    return 0


def export(config: ExportConfig) -> int:
    """``unstill export``."""
    from .inference.export import export

    exported = export(config)
    for name, difference in exported.difference.items():
        print(f"{name}: largest difference of a logit to the trained model {difference:.1e} of the largest")
    print(f"written: {exported.folder}; next: unstill predict VIDEO... --model {exported.folder}")
    return 0


def predict(config: PredictConfig) -> int:
    """``unstill predict``; 1 when a video could not be read."""
    from .inference.predict import predict

    found = predict(config)
    for prediction in found:
        ranked = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in prediction.ranked)
        print(prediction.error or f"{prediction.video}: {ranked}")
    return 1 if any(prediction.error for prediction in found) else 0


def _score(sets: TestSets, predictions: dict[str, Predictions]) -> Scorecard:
    from .evaluation.evaluate import static_labels
    from .evaluation.scorecard import scorecard

    classes = next(iter(predictions.values())).classes
    static = static_labels(sets.conflfg_truth, classes) if sets.conflfg_truth else None
    return scorecard(predictions, static_label=static, mirror=sets.mirror or None)


def _print_scores(cards: dict[str, Scorecard], facts: dict[str, str]) -> None:
    from .evaluation.scorecard import MEASURES

    table = Table(title="Percent, with the 95 % interval", title_justify="left")
    table.add_column("measure")
    for name in cards:
        table.add_column(name, justify="right")
    for measure in dict.fromkeys(measure for card in cards.values() for measure in card.shares):
        name, dot, background = measure.partition(".")
        known = MEASURES.get(name)
        title = f"{known.title}{dot and ' '}{background}" if known else measure
        arrow = {"higher": " ↑", "lower": " ↓"}.get(known.better, "") if known else ""
        shares = [card.shares.get(measure) for card in cards.values()]
        cells = ["" if s is None else f"{s.value:.1f} [{s.low:.1f}, {s.high:.1f}]" for s in shares]
        table.add_row(title + arrow + (" (one-sided)" if known and known.one_sided else ""), *cells)
    console = Console(soft_wrap=False)
    console.print(table)
    for fact, value in facts.items():
        console.print(f"{fact}: {value}", highlight=False, markup=False)


def _print_recipes() -> None:
    from .recipes import RECIPES

    console = Console()
    console.print("usage: unstill train RECIPE [--option value ...]\n", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, recipe in RECIPES.items():
        table.add_row(name, (recipe.__doc__ or "").split("\n")[0])
    console.print(table)
    console.print("\nunstill train RECIPE --help shows every option with the recipe's value.")

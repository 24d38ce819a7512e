"""``unstill evaluate``: what it prints, and what it writes."""

from dataclasses import replace

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...pipeline.atomic_files import check_folder
from ...pipeline.errors import InputError
from ...pipeline.loading.device import resolve_device
from ...pipeline.safe_text import printable
from ..distributed import process_group
from ..evaluation.config import EvaluateCommand, TestSets
from ..evaluation.evaluate import evaluate
from ..evaluation.facts import evaluation_facts, told_apart
from ..evaluation.files import changes_from_first, read_facts, read_logits, sample_counts, write_evaluation
from ..evaluation.measures import MEASURES
from ..evaluation.predictions import Predictions
from ..evaluation.scorecard import Scorecard, scorecard
from ..evaluation.subject import load_subject
from ..evaluation.truth import labels_from_csv


def run(command: EvaluateCommand) -> int:
    """``unstill evaluate``."""
    if (command.logits is None) == (not command.runs):
        raise InputError("give either run folders, or --logits with a folder of saved predictions")
    if command.out is not None:
        check_folder(command.out)
    if command.logits is not None:
        predictions = read_logits(command.logits)
        cards = {name: _score(command.sets, found) for name, found in predictions.items()}
        facts = read_facts(command.logits) | {"logits": str(command.logits)}
    else:
        return _run_models(command)
    _print_scores(cards, facts)
    _write(command, cards, predictions, facts)
    return 0


def _run_models(command: EvaluateCommand) -> int:
    """Evaluate runs, in one process or, started by torchrun, in several that share the work."""
    options = replace(command.run, device=resolve_device(command.run.device))
    subjects = told_apart([load_subject(run, trust_model_code=command.trust_model_code) for run in command.runs])
    with process_group(options.device) as ranks:
        results = evaluate(subjects, command.sets, options, ranks)
    if not ranks.first:
        return 0
    cards = {name: result.card for name, result in results.items()}
    facts = evaluation_facts(subjects, command.sets, options, results)
    _print_scores(cards, facts)
    _write(command, cards, {name: result.predictions for name, result in results.items()}, facts)
    if not command.sets.scuba and not command.sets.conflfg:
        print("static bias: unstill ood build makes test videos with other backgrounds, for --scuba and --conflfg")
    return 0


def _write(command: EvaluateCommand, cards: dict[str, Scorecard], predictions: dict, facts: dict[str, str]) -> None:
    if command.out is not None:
        write_evaluation(command.out, cards, predictions, facts)
        print(f"written: {command.out / 'evaluation.html'}, .json, .csv, .tex and the predictions")


def _score(sets: TestSets, predictions: dict[str, Predictions]) -> Scorecard:
    static = None
    if sets.conflfg_truth is not None:
        if "conflfg" not in predictions:
            raise InputError(f"{sets.conflfg_truth}: no conflfg logits for it; give MODEL.conflfg.npz or .csv, too")
        static = labels_from_csv(sets.conflfg_truth, "static_actor", predictions["conflfg"].classes)
    return scorecard(predictions, static_label=static, mirror=sets.mirror or None)


def _print_scores(cards: dict[str, Scorecard], facts: dict[str, str]) -> None:
    counts, console = sample_counts(cards), Console(soft_wrap=False)
    # several models do not fit a narrow terminal with their intervals: these go below the values, unbroken
    apart = " " if 34 + 21 * len(cards) <= console.width else "\n"
    table = Table(title="Percent, with the 95 % interval", title_justify="left")
    table.add_column("measure")
    table.add_column("n", justify="right")
    for name in cards:
        table.add_column(escape(printable(name)), justify="right")
    for measure in dict.fromkeys(measure for card in cards.values() for measure in card.shares):
        name, dot, background = measure.partition(".")
        known = MEASURES.get(name)
        title = f"{known.title}{dot and ' '}{background}" if known else measure
        arrow = {"higher": " ↑", "lower": " ↓"}.get(known.better, "") if known else ""
        shares = [card.shares.get(measure) for card in cards.values()]
        cells = ["" if s is None else f"{s.value:.1f}{apart}[{s.low:.1f}, {s.high:.1f}]" for s in shares]
        note = " (one-sided)" if known and known.one_sided else ""
        table.add_row(escape(printable(title)) + arrow + note, counts[measure], *cells)
    console.print(table)
    if len(cards) > 1:
        console.print(_differences_table(cards, apart))
    for fact, value in facts.items():
        console.print(printable(f"{fact}: {value}"), highlight=False, markup=False)


def _differences_table(cards: dict[str, Scorecard], apart: str) -> Table:
    """Every other model less the first, in points; bold where the interval, after ``apart``, leaves 0 out."""
    changes = changes_from_first(cards)
    table = Table(title=f"Difference to {escape(printable(next(iter(cards))))}, points", title_justify="left")
    table.add_column("measure")
    for name in changes:
        table.add_column(escape(printable(name)), justify="right")
    for measure in dict.fromkeys(measure for found in changes.values() for measure in found):
        cells = []
        for found in changes.values():
            d = found.get(measure)
            text = "" if d is None else f"{d.value:+.1f}{apart}[{d.low:+.1f}, {d.high:+.1f}]"
            cells.append(f"[bold]{escape(text)}[/]" if d is not None and d.certain else escape(text))
        table.add_row(escape(MEASURES[measure].title if measure in MEASURES else measure), *cells)
    return table

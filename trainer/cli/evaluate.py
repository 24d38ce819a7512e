"""``unstill evaluate``: what it prints, and what it writes."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...pipeline.errors import InputError
from ...pipeline.safe_text import printable
from ..evaluation.config import EvaluateCommand, TestSets
from ..evaluation.evaluate import evaluate
from ..evaluation.files import read_facts, read_logits, write_evaluation
from ..evaluation.measures import MEASURES
from ..evaluation.predictions import Predictions
from ..evaluation.scorecard import Scorecard, scorecard
from ..evaluation.subject import load_subject
from ..evaluation.truth import labels_from_csv


def run(command: EvaluateCommand) -> int:
    """``unstill evaluate``."""
    if (command.logits is None) == (not command.runs):
        raise InputError("give either run folders, or --logits with a folder of saved predictions")
    if command.logits is not None:
        predictions = read_logits(command.logits)
        cards = {name: _score(command.sets, found) for name, found in predictions.items()}
        facts = read_facts(command.logits) | {"logits": str(command.logits)}
    else:
        subjects = [load_subject(run, trust_model_code=command.trust_model_code) for run in command.runs]
        results = evaluate(subjects, command.sets, command.run)
        cards = {name: result.card for name, result in results.items()}
        predictions = {name: result.predictions for name, result in results.items()}
        views = command.run.views
        facts = {
            "views": f"{views.temporal} x {views.spatial}, {views.anchor}, crop {views.crop_share:g} of the short side",
            "short videos": ", ".join(f"{s.name}: {s.clip.short_video}" for s in subjects),
            "seed": str(command.run.seed),
            "decoder": ", ".join(sorted({name for result in results.values() for name in result.decoders})),
            **({"backgrounds of SCUBA and SCUFO": ", ".join(command.sets.scuba)} if command.sets.scuba else {}),
        }
    _print_scores(cards, facts)
    if command.out is not None:
        write_evaluation(command.out, cards, predictions, facts)
        print(f"written: {command.out / 'evaluation.html'}, .json, .csv, .tex and the predictions")
    return 0


def _score(sets: TestSets, predictions: dict[str, Predictions]) -> Scorecard:
    static = None
    if sets.conflfg_truth is not None:
        if "conflfg" not in predictions:
            raise InputError(f"{sets.conflfg_truth}: no conflfg logits for it; give MODEL.conflfg.npz or .csv, too")
        static = labels_from_csv(sets.conflfg_truth, "static_actor", predictions["conflfg"].classes)
    return scorecard(predictions, static_label=static, mirror=sets.mirror or None)


def _print_scores(cards: dict[str, Scorecard], facts: dict[str, str]) -> None:
    table = Table(title="Percent, with the 95 % interval", title_justify="left")
    table.add_column("measure")
    for name in cards:
        table.add_column(escape(printable(name)), justify="right")
    for measure in dict.fromkeys(measure for card in cards.values() for measure in card.shares):
        name, dot, background = measure.partition(".")
        known = MEASURES.get(name)
        title = f"{known.title}{dot and ' '}{background}" if known else measure
        arrow = {"higher": " ↑", "lower": " ↓"}.get(known.better, "") if known else ""
        shares = [card.shares.get(measure) for card in cards.values()]
        cells = ["" if s is None else f"{s.value:.1f} [{s.low:.1f}, {s.high:.1f}]" for s in shares]
        table.add_row(escape(printable(title)) + arrow + (" (one-sided)" if known and known.one_sided else ""), *cells)
    console = Console(soft_wrap=False)
    console.print(table)
    for fact, value in facts.items():
        console.print(printable(f"{fact}: {value}"), highlight=False, markup=False)

"""Evaluations as files: JSON, CSV, LaTeX and HTML from the same numbers, and the logits that they were made from.

    OUT/evaluation.json      every measure with its interval, per class, what it means, and the set-up
    OUT/evaluation.csv       one row a model and measure, then one for each class of it
    OUT/differences.csv      every other model less the first, by measure and class, where there are several
    OUT/evaluation.tex       a booktabs table, one row a model
    OUT/evaluation.html      the same for a browser, one self-contained page
    OUT/predictions/<model>.<set>.npz, and facts.json: views, short-video rule and seed

``read_logits`` reads such a folder back, or one that another framework wrote: files ``<model>.<set>.npz`` or ``.csv``,
and a facts.json, an object of texts, that says how the logits were made.
"""

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ...pipeline.atomic_files import make_folder, write_atomic
from ...pipeline.bounded_files import read_json
from ...pipeline.errors import InputError
from ...pipeline.pages import template
from ...pipeline.safe_text import csv_cell, latex_text, printable
from .differences import Difference, differences
from .measures import MEASURES, PER_BACKGROUND, Measure, plain_accuracy
from .predictions import Predictions
from .protocols import Share
from .scorecard import Scorecard

FACTS = "facts.json"
_SEED = re.compile(r"(?P<run>.+?)[_-]?seed[_-]?(?P<seed>\d+)$")


@dataclass(frozen=True)
class Spread:
    """A measure over runs with different seeds, in percent.

    Attributes:
        mean: over the runs.
        deviation: sample standard deviation (n - 1), NaN for one run.
        runs: how many.
    """

    mean: float
    deviation: float
    runs: int


def read_logits(folder: Path) -> dict[str, dict[str, Predictions]]:
    """Model -> name of the set (see ``scorecard``) -> predictions.

    Raises:
        InputError: no such folder, no prediction files in it, or one that cannot be used.
    """
    files = sorted([*folder.glob("*.npz"), *folder.glob("*.csv")])
    found: dict[str, dict[str, Predictions]] = {}
    for path in files:
        model, name = _model_and_set(path.stem)
        if not model:
            raise InputError(f"{path}: expected a name like MODEL.SET.npz, such as mine.scuba.places.npz")
        if name in found.setdefault(model, {}):
            raise InputError(f"{path}: {model}.{name} is there as .npz and as .csv; keep one")
        found[model][name] = Predictions.load(path)
    if not found:
        raise InputError(f"{folder}: no .npz or .csv files; expected predictions named MODEL.SET.npz")
    return found


def _model_and_set(stem: str) -> tuple[str, str]:
    """MODEL and SET of a file's name; a model's name may have dots (lr0.01), a set's and a background's have none."""
    model, _, name = stem.rpartition(".")
    before, _, kind = model.rpartition(".")
    return (before, f"{kind}.{name}") if before and kind in PER_BACKGROUND else (model, name)


def read_facts(folder: Path) -> dict[str, str]:
    """How the logits of a folder were made, from its facts.json; says that nothing is known where there is none.

    Raises:
        InputError: facts.json is not an object of texts.
    """
    path = folder / FACTS
    if not path.exists():
        return {"views": f'not stated; {path} may say, such as {{"views": "4 x 3", "short videos": "loop"}}'}
    try:
        found = read_json(path)
        return {str(name): str(value) for name, value in found.items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f'{path}: not an object of texts ({error}); expected such as {{"views": "4 x 3"}}') from None


def across_seeds(cards: Mapping[str, Scorecard]) -> dict[str, dict[str, Spread]]:
    """Run -> measure -> spread, over models named <run>_seed<number>.

    Raises:
        InputError: runs of one name do not have the same measures.
    """
    groups: dict[str, list[dict[str, float]]] = {}
    for name, card in cards.items():
        if match := _SEED.match(name):
            groups.setdefault(match["run"], []).append(card.values())
    spreads = {}
    for run, values in groups.items():
        if any(v.keys() != values[0].keys() for v in values):
            raise InputError(f"{run}: its seeds were not evaluated on the same sets; evaluate all of them together")
        spreads[run] = {
            measure: Spread(
                mean=float(np.mean([v[measure] for v in values])),
                deviation=float(np.std([v[measure] for v in values], ddof=1)) if len(values) > 1 else float("nan"),
                runs=len(values),
            )
            for measure in values[0]
        }
    return spreads


def changes_from_first(cards: Mapping[str, Scorecard]) -> dict[str, dict[str, Difference]]:
    """Model -> measure -> its difference to the first model; of every model but the first."""
    first, *others = cards
    return {model: differences(cards[first], cards[model]) for model in others}


def write_evaluation(
    out: Path,
    cards: Mapping[str, Scorecard],
    predictions: Mapping[str, Mapping[str, Predictions]],
    facts: Mapping[str, str],
) -> None:
    """Write every file named at the top of this module.

    Args:
        out: folder, created when missing.
        cards: model -> scorecard.
        predictions: model -> set -> predictions.
        facts: what must be stated with the numbers: views, short-video rule, seed, versions.

    Raises:
        InputError: the folder cannot be written.
    """
    make_folder(out / "predictions")
    spreads, changes = across_seeds(cards), changes_from_first(cards)
    texts = {
        "evaluation.json": _json(cards, spreads, facts, changes),
        "evaluation.csv": _csv(cards, facts),
        "evaluation.tex": latex(cards, spreads, facts),
        "evaluation.html": html(cards, spreads, facts, changes),
    }
    if changes:
        texts["differences.csv"] = _differences_csv(cards, changes)
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    write_atomic(out / "predictions" / FACTS, json.dumps(dict(facts), indent=1).encode())
    for model, sets in predictions.items():
        for name, found in sets.items():
            found.save(out / "predictions" / f"{model}.{name}.npz")


def latex(cards: Mapping[str, Scorecard], spreads: Mapping[str, Mapping[str, Spread]], facts: Mapping[str, str]) -> str:
    """A booktabs table: runs of several seeds as mean and standard deviation, single ones with their interval."""
    measures = _headline(cards)
    known = [_measure(name) for name in measures]
    arrows = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "": ""}
    marks = {True: r"$^\ast$", False: ""}
    titles = [latex_text(measure.title) + arrows[measure.better] + marks[measure.one_sided] for measure in known]
    head = " & ".join(["model", *titles])
    rows = []
    for run, spread in spreads.items():
        cells = [
            f"${spread[m].mean:.1f} \\pm {spread[m].deviation:.1f}$"
            if spread[m].runs > 1
            else f"${spread[m].mean:.1f}$"
            for m in measures
        ]
        rows.append(" & ".join([latex_text(run), *cells]) + r" \\")
    for model, card in cards.items():
        if _SEED.match(model) is None:
            rows.append(" & ".join([latex_text(model), *(_tex_share(card.shares.get(m)) for m in measures)]) + r" \\")
    notes = [f"% {printable(name)}: {printable(value)}" for name, value in facts.items()]
    comment = "% mean and standard deviation over seeds; of single runs the 95 % interval, clustered by source video"
    return "\n".join(
        [
            comment,
            "% with an asterisk: one-sided, a low value proves nothing; a high one shows that appearance decides, or,",
            "% where higher is better, that motion is read",
            "% n: " + ", ".join(f"{name} {count}" for name, count in sample_counts(cards).items() if name in measures),
            *notes,
            rf"\begin{{tabular}}{{l{'r' * len(measures)}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def html(
    cards: Mapping[str, Scorecard],
    spreads: Mapping[str, Mapping[str, Spread]],
    facts: Mapping[str, str],
    changes: Mapping[str, Mapping[str, Difference]] | None = None,
) -> str:
    """One self-contained page: the table, differences to the first model, the spread over seeds, measures per class."""
    measures = list(dict.fromkeys(m for card in cards.values() for m in card.shares))
    classes = {model: {len(of.classes) for of in card.sampled.values()} for model, card in cards.items()}
    return template(Path(__file__).with_name("evaluation.html.j2")).render(
        cards=cards,
        spreads=spreads,
        counts=sample_counts(cards),
        changes=changes or {},
        first=next(iter(cards)),
        facts=facts,
        subjects={name: value for name, value in facts.items() if name.startswith(_SUBJECTS)},
        rows=[(name, _measure(name), name.partition(".")[2]) for name in measures],
        classes=list(dict.fromkeys(c for card in cards.values() for t in card.per_class.values() for c in t)),
        guessed=sorted(set().union(*classes.values())),
        guess=lambda name, model: _measure(name).guess(*classes[model]) if len(classes[model]) == 1 else None,
        title=lambda name: _measure(name).title + (f" · {name.partition('.')[2]}" if "." in name else ""),
        points=_points,
    )


_SUBJECTS = ("model ", "set ")  # facts that say what was evaluated


def _points(difference: Difference) -> Markup:
    """``+3.1``, in bold where its interval leaves 0 out."""
    text = f"{difference.value:+.1f}".replace("-", "−")
    return Markup(f"<b>{text}</b>" if difference.certain else text)


def sample_counts(cards: Mapping[str, Scorecard]) -> dict[str, str]:
    """Measure -> number of samples; several numbers where the models differ."""
    found: dict[str, set[int]] = {}
    for card in cards.values():
        for measure, share in card.shares.items():
            found.setdefault(measure, set()).add(share.samples)
    return {measure: " / ".join(f"{count:,}" for count in sorted(counts)) for measure, counts in found.items()}


def _measure(name: str) -> Measure:
    """The measure of a column, ``measure`` or ``measure.background``."""
    return MEASURES.get(name.partition(".")[0], plain_accuracy(name))


def _headline(cards: Mapping[str, Scorecard]) -> list[str]:
    return list(dict.fromkeys(m for card in cards.values() for m in card.shares if "." not in m))


def _json(cards: Mapping[str, Scorecard], spreads: Mapping, facts: Mapping[str, str], changes: Mapping) -> str:
    models = {
        model: {
            "shares": {m: asdict(s) for m, s in card.shares.items()},
            "per_class": card.per_class,
            "differences": {m: asdict(d) for m, d in changes.get(model, {}).items()},
        }
        for model, card in cards.items()
    }
    seeds = {run: {m: asdict(s) for m, s in spread.items()} for run, spread in spreads.items()}
    for spread in seeds.values():
        for entry in spread.values():
            entry["deviation"] = None if np.isnan(entry["deviation"]) else entry["deviation"]
    names = dict.fromkeys(m.partition(".")[0] for card in cards.values() for m in card.shares)
    known = {name: _measure(name) for name in names}
    told = ("title", "better", "meaning", "one_sided")
    measures = {name: {field: getattr(measure, field) for field in told} for name, measure in known.items()}
    content = {"models": models, "across_seeds": seeds, "measures": measures, "facts": dict(facts)}
    return json.dumps(content, indent=1) + "\n"


def _csv(cards: Mapping[str, Scorecard], facts: Mapping[str, str]) -> str:
    buffer = io.StringIO()
    columns = "model measure background class percent low95 high95 samples source_videos one_sided how".split()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    how = csv_cell("; ".join(f"{name}: {value}" for name, value in facts.items()))
    for model, card in cards.items():
        rows = []
        for name, share in card.shares.items():
            measure, _, background = name.partition(".")
            interval = {"low95": f"{share.low:.4f}", "high95": f"{share.high:.4f}"}
            counts = {"samples": share.samples, "source_videos": share.clusters}
            about = {"measure": measure, "background": csv_cell(background), "percent": f"{share.value:.4f}"}
            rows.append(about | interval | counts)
        for measure, table in card.per_class.items():
            shares = card.class_shares(measure) if measure in card.sampled else {}
            for name, value in table.items():
                row = {"measure": measure, "class": csv_cell(name), "percent": f"{value:.4f}"}
                if name in shares:
                    row |= {"low95": f"{shares[name].low:.4f}", "high95": f"{shares[name].high:.4f}"}
                    row |= {"samples": shares[name].samples, "source_videos": shares[name].clusters}
                rows.append(row)
        for row in rows:
            one_sided = _measure(row["measure"]).one_sided
            writer.writerow({"model": csv_cell(model), **row, "one_sided": "yes" if one_sided else "no", "how": how})
    return buffer.getvalue()


def _differences_csv(cards: Mapping[str, Scorecard], changes: Mapping[str, Mapping[str, Difference]]) -> str:
    buffer, first = io.StringIO(), csv_cell(next(iter(cards)))
    columns = ["model", "reference", "measure", "class", "points", "low95", "high95", "samples", "source_videos"]
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for model, found in changes.items():
        for measure, whole in found.items():
            for name, part in {"": whole, **whole.per_class}.items():
                interval = {"points": f"{part.value:.4f}", "low95": f"{part.low:.4f}", "high95": f"{part.high:.4f}"}
                counts = {"samples": part.samples, "source_videos": part.clusters}
                about = {"model": csv_cell(model), "reference": first, "measure": measure, "class": csv_cell(name)}
                writer.writerow(about | interval | counts)
    return buffer.getvalue()


def _tex_share(share: Share | None) -> str:
    return "--" if share is None else f"${share.value:.1f}$ {{\\footnotesize [{share.low:.1f}, {share.high:.1f}]}}"

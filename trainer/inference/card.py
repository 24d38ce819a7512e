"""The model card of an exported folder: README.md as the Hugging Face Hub reads it, YAML in front of Markdown.

    text = card_text(read_origin(run), facts, measured, license="cc-by-4.0")

A card says what the weights are of (data, recipe, commit), what was measured with which intervals, and what neither
shows. Names come from runs and datasets, which may be a stranger's: they are quoted, and cannot become markup.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unstill import __version__

from ...pipeline.bounded_files import read_json
from ...pipeline.errors import InputError
from ...pipeline.safe_text import printable
from ..checkpoints.checkpoint import read_record
from ..checkpoints.files import find_checkpoint, run_folder
from ..config import to_dict
from ..evaluation.measures import MEASURES, plain_accuracy
from ..evaluation.protocols import Share
from ..evaluation.subject import Origin, origin_of
from .classifier import Facts

CARD = "README.md"


@dataclass(frozen=True)
class RunFacts:
    """What a run says of itself.

    Attributes:
        name: of its folder.
        origin: step, method, network and data.
        pretrained: what its network started from.
        environment: versions and device of the training, by name.
        recipe: the complete configuration, JSON.
    """

    name: str
    origin: Origin
    pretrained: str
    environment: Mapping[str, str]
    recipe: str


@dataclass(frozen=True)
class Measured:
    """What an evaluation found.

    Attributes:
        shares: measure -> percent with its interval.
        facts: how it was evaluated, by name.
    """

    shares: Mapping[str, Share]
    facts: Mapping[str, str] = field(default_factory=dict)


def read_origin(run: Path) -> RunFacts:
    """The facts of a run or checkpoint.

    Raises:
        InputError: there is no complete checkpoint.
    """
    checkpoint = find_checkpoint(run)
    config, _, _ = read_record(checkpoint / "config.json")
    environment = read_json(checkpoint / "config.json").get("environment")
    known = environment if isinstance(environment, dict) else {}
    return RunFacts(
        run_folder(checkpoint).resolve().name,
        origin_of(checkpoint, config),
        config.model.weights,
        {str(name): str(value) for name, value in known.items()},
        json.dumps(to_dict(config), indent=1),
    )


def read_measured(path: Path, name: str) -> Measured:
    """One model's measures from what ``unstill evaluate --out`` wrote.

    Args:
        path: that folder, or the evaluation.json in it.
        name: of the model there; not needed where there is one only.

    Raises:
        InputError: no such file, a damaged one, or several models of which none has this name.
    """
    path = path / "evaluation.json" if path.is_dir() else path
    try:
        record = read_json(path)
        models = dict(record["models"])
        if name not in models and len(models) != 1:
            raise InputError(f"{path}: no model {name!r} in it, only {', '.join(map(repr, models))}")
        chosen = models.get(name) or next(iter(models.values()))
        shares = {str(measure): _share(found) for measure, found in chosen["shares"].items()}
        return Measured(shares, {str(fact): str(value) for fact, value in record["facts"].items()})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a folder that `unstill evaluate --out` wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); evaluate again") from None


def card_text(run: RunFacts, facts: Facts, measured: Measured | None = None, license: str = "") -> str:
    """The card as text.

    Args:
        run: where the weights are from.
        facts: what goes with them.
        measured: what an evaluation found; without it the card says that nothing is known.
        license: of the weights, as the Hub names it.
    """
    parts = [
        _front_matter(run, measured, license),
        f"# {_text(run.name)}",
        f"A classifier of {facts.clip.frames}-frame video clips into {len(facts.classes)} classes: "
        f"{_text(run.origin.method)}, network {_code(facts.model)}, trained with unstill.",
        _use(facts),
        _training(run),
        _measures(measured, len(facts.classes)),
        _limits(run, facts, measured),
        "## Licence\n\n" + _licence(run, license),
        "## Recipe\n\n<details><summary>Complete configuration</summary>\n\n" + _fenced(run.recipe) + "\n\n</details>",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(run: RunFacts, measured: Measured | None, license: str) -> str:
    """YAML; every text is written as JSON, which YAML reads as a quoted text."""
    quoted = lambda text: json.dumps(printable(text), ensure_ascii=False)  # noqa: E731
    lines = ["---", "library_name: unstill", "pipeline_tag: video-classification"]
    lines += [f"license: {quoted(license or 'other')}"]
    lines += ["tags:", *(f"- {quoted(tag)}" for tag in ("unstill", "static-bias", run.origin.method.lower()))]
    if measured is not None and measured.shares:
        lines += ["model-index:", f"- name: {quoted(run.name)}", "  results:"]
        lines += ["  - task:", "      type: video-classification", "    dataset:"]
        lines += [f"      name: {quoted(_test_set(measured))}", "      type: unstill", "    metrics:"]
        for name, share in measured.shares.items():
            about = [f"      name: {quoted(_title(name))}", f"      value: {share.value:.2f}"]
            lines += [f"    - type: {quoted(name)}", *about]
    return "\n".join([*lines, "---"])


def _use(facts: Facts) -> str:
    clip = facts.clip
    return (
        "## Use\n\n"
        "```\npip install unstill\nunstill predict VIDEO --model FOLDER_OR_hf:NAME\n```\n\n"
        f"Input: {clip.frames} frames, every {clip.stride}. of the video, {clip.size} x {clip.size} pixels, uint8 RGB; "
        f"normalised by mean {_three(facts.mean)} and standard deviation {_three(facts.std)} of the full range. "
        "`config.json` has all of this, `labels.txt` the classes in the order of the logits. Loading runs no code "
        "from these files."
    )


def _training(run: RunFacts) -> str:
    origin = run.origin
    rows = {
        "run": f"{run.name}, step {origin.step}" + (", moving average of the weights" if origin.average else ""),
        "method": origin.method,
        "network": origin.network,
        "started from": run.pretrained if run.pretrained != "none" else "random weights",
        "training data": origin.data,
        "precision": origin.precision,
        **run.environment,
    }
    return "## Training\n\n" + _table(("", ""), [(_text(name), _text(value)) for name, value in rows.items()])


def _measures(measured: Measured | None, classes: int) -> str:
    if measured is None or not measured.shares:
        return (
            "## Measures\n\nNone were given to `unstill export --card --evaluation FOLDER`: nothing is known of the "
            "accuracy of these weights, nor of their static bias."
        )
    rows = []
    for name, share in measured.shares.items():
        measure = MEASURES.get(name.partition(".")[0]) or plain_accuracy(name)
        arrow = {"higher": " ↑", "lower": " ↓"}.get(measure.better, "")
        guess = measure.guess(classes)
        meaning = measure.meaning + (" One-sided: a low value proves nothing." if measure.one_sided else "")
        cells = [f"{share.value:.1f}", f"{share.low:.1f} to {share.high:.1f}", f"{share.samples:,}"]
        cells += ["" if guess is None else f"{guess:.1f}", "" if "." in name else _text(meaning)]
        rows.append((_text(_title(name)) + arrow, *cells))
    heads = ("measure", "percent", "95 % interval", "n", "guessing", "what it is")
    how = [(_text(name), _text(value)) for name, value in measured.facts.items()]
    return (
        "## Measures\n\nIntervals are over source videos. ↑ higher is better, ↓ lower is better.\n\n"
        + _table(heads, rows)
        + (f"\n\nHow it was evaluated:\n\n{_table(('', ''), how)}" if how else "")
    )


def _limits(run: RunFacts, facts: Facts, measured: Measured | None) -> str:
    limits = [
        f"It names one of its {len(facts.classes)} classes whatever the video shows; none of them means "
        '"something else".',
        "The measures hold for the test sets named above. Other cameras, places and people were not tested.",
    ]
    names = {name.partition(".")[0] for name in (measured.shares if measured is not None else ())}
    if not names & {"scufo_probe", "scufo_feature_probe"}:
        limits.append(
            "Whether the class can still be read from a still frame in its logits or features was not measured: a "
            "low SCUFO alone may only hide it."
        )
    if not names & {"anti", "swap", "conflfg"}:
        limits.append("Whether it follows the appearance of the moving person or object was not measured.")
    if run.pretrained not in ("none", ""):
        limits.append(f"It started from other weights ({_code(run.pretrained)}) and may keep their faults.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _licence(run: RunFacts, license: str) -> str:
    weights = f"The weights: {_text(license)}." if license else "Of the weights: not stated; ask who published them."
    other = " Those of the videos and of the weights that it started from hold besides." if _pretrained(run) else ""
    return f"{weights}{other} The code of unstill {__version__}: Apache-2.0."


def _pretrained(run: RunFacts) -> bool:
    return run.pretrained not in ("none", "")


def _title(name: str) -> str:
    measure, _, background = name.partition(".")
    return (MEASURES.get(measure) or plain_accuracy(measure)).title + (f" {background}" if background else "")


def _test_set(measured: Measured) -> str:
    return next((value for name, value in measured.facts.items() if name == "set iid"), "see Measures")


def _share(found: Mapping) -> Share:
    numbers = {name: float(found[name]) for name in ("value", "low", "high")}
    return Share(**numbers, samples=int(found["samples"]), clusters=int(found["clusters"]))


def _three(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _text(text: str) -> str:
    """A text of unknown origin as Markdown shows it letter by letter, inside of a table or out of it."""
    return re.sub(r"([\\`*_{}\[\]()<>#|!~&])", r"\\\1", printable(text))


def _code(text: str) -> str:
    return "`" + printable(text).replace("`", "'").replace("|", "\\|") + "`"


def _fenced(text: str) -> str:
    """In a fence that is longer than any in the text."""
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}json\n{text}\n{fence}"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

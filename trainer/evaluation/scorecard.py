"""All bias measures of one model, from its predictions on named test sets; who made the predictions does not matter.

The name of a set says what it is. SCUBA, SCUFO and shaken SCUFO exist once a background:

    iid  reversed  shuffled  static_iid          from the ordinary test videos
    scuba.<background>  scufo.<background>  shaken_scufo.<background>
    conflfg
    anything else                                 plain accuracy

The headline of a measure with several backgrounds is the unweighted mean over them, as published.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...pipeline.errors import InputError
from .predictions import Predictions
from .protocols import (
    Share,
    conflicting_foreground,
    contrasted,
    correct,
    entropy,
    mirror_labels,
    per_class,
    reversed_keep_flip,
    share,
)


@dataclass(frozen=True)
class Measure:
    """What a number means.

    Attributes:
        title: as it stands in a table's head.
        better: "higher", "lower", or "" where neither is.
        meaning: one sentence.
        one_sided: a high value shows something, a low one proves nothing.
    """

    title: str
    better: str
    meaning: str
    one_sided: bool = False


PER_BACKGROUND = ("scuba", "scufo", "shaken_scufo")
MEASURES = {
    "iid": Measure("IID", "higher", "Accuracy on ordinary test videos, where looks predict the class as in training."),
    "scuba": Measure("SCUBA", "higher", "Accuracy with the actor cut out and put before another background."),
    "scufo": Measure("SCUFO", "lower", "Accuracy on one frame of a SCUBA video, repeated: nothing moves."),
    "contrasted": Measure("Contrasted", "higher", "Right on a SCUBA video and wrong on its SCUFO twin."),
    "conflfg": Measure(
        "Confl-FG", "higher", "Names the moving actor's class although another class's actor stands beside it."
    ),
    "anti": Measure("Anti", "higher", "Accuracy when scene and actor are always another class's."),
    "swap": Measure("Swap", "higher", "Accuracy with an unseen scene and always another class's actor."),
    "unbiased": Measure("Unbiased", "higher", "Accuracy when scene and actor say nothing about the class."),
    "shaken_scufo": Measure(
        "Shaken SCUFO", "lower", "Accuracy on a SCUFO frame that jumps about: naming what moves by its looks.", True
    ),
    "reversed_keep": Measure(
        "Reversed: keep", "lower", "A video played backwards keeps its class: direction is not read.", True
    ),
    "reversed_flip": Measure(
        "Reversed: flip", "higher", "A video played backwards becomes the mirror class: direction is read.", True
    ),
    "reversed": Measure(
        "Reversed", "", "Accuracy on videos played backwards, whether that changes their class or not."
    ),
    "shuffled": Measure("Shuffled", "lower", "Accuracy with the frames in random order.", True),
    "static_iid": Measure("Static IID", "lower", "Accuracy on one frame of an ordinary video, repeated."),
    "conflfg_static": Measure("Confl-FG static", "lower", "Names the class of the actor that stands still."),
    "conflfg_preference": Measure(
        "Confl-FG preference", "higher", "Gives the moving actor's class a higher probability than the still one's."
    ),
    "static_entropy": Measure(
        "Static entropy", "higher", "How undecided the model is about SCUFO clips; 100 is evenly spread."
    ),
}


@dataclass(frozen=True)
class Scorecard:
    """Measures by name, in percent; per background as ``scuba.<background>`` when there are several.

    Attributes:
        shares: measure -> mean with its interval.
        per_class: measure -> class -> percent.
    """

    shares: dict[str, Share]
    per_class: dict[str, dict[str, float]]

    def values(self) -> dict[str, float]:
        """Measure -> percent."""
        return {name: found.value for name, found in self.shares.items()}


def scorecard(
    predictions: Mapping[str, Predictions],
    *,
    static_label: Mapping[str, int] | None = None,
    mirror: Mapping[str, str] | None = None,
) -> Scorecard:
    """Score a model's predictions on every set that is given.

    Args:
        predictions: by the names at the top of this module.
        static_label: class of the still actor of every Confl-FG key; without it Confl-FG has only its headline.
        mirror: class name -> name of the class that it becomes when time runs backwards; without it ``reversed`` is
            plain accuracy over all classes.

    Raises:
        InputError: two sets have different classes; sets that must pair do not (the message names the key); a SCUFO
            set has no SCUBA set.
    """
    _one_label_set(predictions)
    card = _Card()
    for name, found in predictions.items():
        kind, _, background = name.partition(".")
        match kind:
            case "scuba":
                card.add("scuba", background, correct(found), found)
            case "scufo":
                scuba = predictions.get(f"scuba.{background}" if background else "scuba")
                if scuba is None:
                    raise InputError(f"{name}: there is no scuba set for it to pair with; give both")
                card.add("scufo", background, correct(found), found)
                card.add("static_entropy", background, entropy(found), found)
                card.add("contrasted", background, contrasted(scuba, found), scuba)
            case "shaken_scufo":
                card.add("shaken_scufo", background, correct(found), found)
            case "conflfg":
                card.add("conflfg", background, correct(found), found)
                if static_label is not None:
                    scores = conflicting_foreground(found, static_label)
                    card.add("conflfg_static", background, scores.static, found)
                    card.add("conflfg_preference", background, scores.preference, found)
            case "reversed" if mirror is not None:
                keep, flip, counted = reversed_keep_flip(found, mirror_labels(found.classes, mirror))
                card.add("reversed_keep", "", keep, found, counted)
                card.add("reversed_flip", "", flip, found, counted)
            case _:
                card.add(name, "", correct(found), found)
    return card.finish()


def _one_label_set(predictions: Mapping[str, Predictions]) -> None:
    """Refuse logits whose columns mean other classes from set to set; sets without class names say nothing."""
    named = {n: p for n, p in predictions.items() if p.classes != tuple(str(c) for c in range(len(p.classes)))}
    for name, found in named.items():
        first = next(iter(named))
        if found.classes != named[first].classes:
            raise InputError(f"{name}: its classes, or their order, are not those of {first}; save all in one order")


class _Card:
    """Scores by measure and background, until all of them are there to be averaged."""

    def __init__(self) -> None:
        self._scores: dict[str, dict[str, tuple[np.ndarray, Predictions]]] = {}

    def add(
        self, measure: str, background: str, scores: np.ndarray, of: Predictions, counted: np.ndarray | None = None
    ) -> None:
        if counted is not None:
            of = Predictions(
                tuple(of.keys[i] for i in counted), of.labels[counted], of.logits[counted], of.classes, of.name
            )
        self._scores.setdefault(measure, {})[background] = (np.asarray(scores, np.float64), of)

    def finish(self) -> Scorecard:
        shares, classes = {}, {}
        order = {name: n for n, name in enumerate(MEASURES)}
        for measure in sorted(self._scores, key=lambda name: order.get(name, len(order))):
            parts = self._scores[measure]
            scores = np.concatenate([s for s, _ in parts.values()])
            keys = [key for _, of in parts.values() for key in of.keys]
            weights = np.concatenate([np.full(len(s), 1 / len(s)) for s, _ in parts.values()])
            shares[measure] = share(scores, keys, weights=weights)
            tables = [per_class(s, of) for s, of in parts.values()]
            names = dict.fromkeys(name for table in tables for name in table)
            classes[measure] = {n: float(np.mean([t[n] for t in tables if n in t])) for n in names}
            if len(parts) > 1:
                for background, (s, of) in parts.items():
                    shares[f"{measure}.{background}"] = share(s, of.keys)
        return Scorecard(shares, classes)

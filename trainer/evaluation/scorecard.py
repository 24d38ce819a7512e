"""All bias measures of one model, from its predictions on named test sets; who made the predictions does not matter.

The name of a set says what it is. SCUBA, SCUFO and shaken SCUFO exist once a background:

    iid  reversed  shuffled  static_iid          from the ordinary test videos
    scuba.<background>  scufo.<background>  shaken_scufo.<background>
    conflfg
    anything else                                 plain accuracy

The headline of a measure with several backgrounds is the unweighted mean over them, as published.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...pipeline.errors import InputError
from .measures import MEASURES, PER_BACKGROUND, Evidence, measures_on
from .predictions import Predictions
from .protocols import Share, per_class, share


@dataclass(frozen=True)
class Sampled:
    """What a measure's percentage is the mean of.

    Attributes:
        keys: N; the same video may be there once a background.
        labels: int64 (N,), positions in ``classes``.
        scores: float64 (N,), 0 to 1.
        weights: float64 (N,); every background counts alike.
        class_weights: float64 (N,); the same within each class.
        classes: names.
    """

    keys: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    class_weights: np.ndarray
    classes: tuple[str, ...]

    def of_class(self, label: int) -> Share:
        """The share of one class that occurs."""
        rows = np.flatnonzero(self.labels == label)
        return share(self.scores[rows], [self.keys[n] for n in rows], weights=self.class_weights[rows])


@dataclass(frozen=True)
class Scorecard:
    """Measures by name, in percent; per background as ``scuba.<background>`` when there are several.

    Attributes:
        shares: measure -> mean with its interval.
        per_class: measure -> class -> percent.
        sampled: measure -> the scores of its samples, which differences between models are taken of.
    """

    shares: dict[str, Share]
    per_class: dict[str, dict[str, float]]
    sampled: dict[str, Sampled] = field(default_factory=dict)

    def class_shares(self, measure: str) -> dict[str, Share]:
        """Class -> percent with its interval, of a measure whose samples are known."""
        of = self.sampled[measure]
        return {name: of.of_class(n) for n, name in enumerate(of.classes) if (of.labels == n).any()}

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
        clips, _, background = name.partition(".")
        if background and clips not in (*PER_BACKGROUND, "conflfg"):
            clips, background = name, ""
        scuba = predictions.get(f"scuba.{background}" if background else "scuba")
        evidence = Evidence(name, found, scuba, static_label, mirror)
        for measure, definition in measures_on(clips).items():
            scores = definition.score(evidence)
            if scores is not None:
                card.add(measure, background, *scores)
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

    def add(self, measure: str, background: str, scores: np.ndarray, of: Predictions) -> None:
        self._scores.setdefault(measure, {})[background] = (np.asarray(scores, np.float64), of)

    def finish(self) -> Scorecard:
        shares, classes, sampled = {}, {}, {}
        order = {name: n for n, name in enumerate(MEASURES)}
        for measure in sorted(self._scores, key=lambda name: order.get(name, len(order))):
            parts = self._scores[measure]
            scores = np.concatenate([s for s, _ in parts.values()])
            keys = [key for _, of in parts.values() for key in of.keys]
            weights = np.concatenate([np.full(len(s), 1 / len(s)) for s, _ in parts.values()])
            shares[measure] = share(scores, keys, weights=weights)
            tables = [per_class(s, of) for s, of in parts.values()]
            names = dict.fromkeys(name for table in tables for name in table)
            of_class = [1 / np.bincount(of.labels)[of.labels] for _, of in parts.values()]
            sampled[measure] = Sampled(
                tuple(keys),
                np.concatenate([of.labels for _, of in parts.values()]),
                scores,
                weights,
                np.concatenate(of_class),
                next(of.classes for _, of in parts.values()),
            )
            classes[measure] = {n: float(np.mean([t[n] for t in tables if n in t])) for n in names}
            if len(parts) > 1:
                for background, (s, of) in parts.items():
                    shares[f"{measure}.{background}"] = share(s, of.keys)
        return Scorecard(shares, classes, sampled)

"""The measures of static bias, each defined once: its title, the clips it is taken on, and how they are scored.

To add a measure, add an entry to ``MEASURES``; if it needs clips of its own, add them to ``CLIP_SETS``. What the
evaluator makes, the scorecard, the tables and the files all follow from these two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

from ...pipeline.errors import InputError
from .derived_clips import as_filmed, backwards, shaken, shuffled, still
from .predictions import Predictions
from .protocols import (
    conflicting_foreground,
    contrasted,
    correct,
    entropy,
    least_likely,
    linearly_readable,
    mirror_labels,
    reversed_keep_flip,
)

# one score for each sample, and the predictions that they belong to; None where the measure does not apply
Scores = tuple[np.ndarray, Predictions] | None


class SeededTransform(Protocol):
    """Makes test clips."""

    def __call__(self, frames: Tensor, keys: Sequence[str], seed: int) -> Tensor:
        """uint8 clips (B,T,H,W,3) and their B keys -> uint8 clips of the same shape."""
        ...


@dataclass(frozen=True)
class ClipSet:
    """Test clips that are made from a dataset.

    Attributes:
        name: of the predictions on them, followed by ``.<background>`` where the source is "scuba".
        source: the field of ``TestSets`` that names the dataset.
        make: makes them from the dataset's clips.
        features: whether a measure wants what the model's last layer sees of them.
    """

    name: str
    source: Literal["iid", "scuba", "conflfg"]
    make: SeededTransform = as_filmed
    features: bool = False


CLIP_SETS = (
    ClipSet("iid", "iid"),
    ClipSet("reversed", "iid", backwards),
    ClipSet("shuffled", "iid", shuffled),
    ClipSet("static_iid", "iid", still),
    ClipSet("scuba", "scuba"),
    ClipSet("scufo", "scuba", still, features=True),
    ClipSet("shaken_scufo", "scuba", shaken),
    ClipSet("conflfg", "conflfg"),
)
WITH_FEATURES = tuple(clips.name for clips in CLIP_SETS if clips.features)
PER_BACKGROUND = tuple(clips.name for clips in CLIP_SETS if clips.source == "scuba")


@dataclass(frozen=True)
class Evidence:
    """What a measure may look at.

    Attributes:
        name: of the set of clips, for messages.
        found: the predictions on them.
        scuba: the predictions on the SCUBA videos of the same background, if there are any.
        static_label: key -> class of the still actor, if known.
        mirror: class -> class that it becomes when time runs backwards, if known.
    """

    name: str
    found: Predictions
    scuba: Predictions | None = None
    static_label: Mapping[str, int] | None = None
    mirror: Mapping[str, str] | None = None


def accuracy(evidence: Evidence) -> Scores:
    """Right class or not."""
    return correct(evidence.found), evidence.found


def _contrasted(evidence: Evidence) -> Scores:
    if evidence.scuba is None:
        raise InputError(f"{evidence.name}: there is no scuba set for it to pair with; give both")
    return contrasted(evidence.scuba, evidence.found), evidence.scuba


def _undecided(evidence: Evidence) -> Scores:
    return entropy(evidence.found), evidence.found


def _least_likely(evidence: Evidence) -> Scores:
    return least_likely(evidence.found), evidence.found


def _probed(evidence: Evidence) -> Scores:
    found = linearly_readable(evidence.found)
    return None if found is None else (found, evidence.found)


def _features_probed(evidence: Evidence) -> Scores:
    if evidence.found.features is None:
        return None
    found = linearly_readable(evidence.found, evidence.found.features)
    return None if found is None else (found, evidence.found)


def _static_actor(evidence: Evidence) -> Scores:
    if evidence.static_label is None:
        return None
    return conflicting_foreground(evidence.found, evidence.static_label).static, evidence.found


def _preference(evidence: Evidence) -> Scores:
    if evidence.static_label is None:
        return None
    return conflicting_foreground(evidence.found, evidence.static_label).preference, evidence.found


def _keeps_class(evidence: Evidence) -> Scores:
    if evidence.mirror is None:
        return None
    keep, _, counted = reversed_keep_flip(evidence.found, mirror_labels(evidence.found.classes, evidence.mirror))
    return keep, evidence.found.rows(counted)


def _flips_class(evidence: Evidence) -> Scores:
    if evidence.mirror is None:
        return None
    _, flip, counted = reversed_keep_flip(evidence.found, mirror_labels(evidence.found.classes, evidence.mirror))
    return flip, evidence.found.rows(counted)


def _reversed_accuracy(evidence: Evidence) -> Scores:
    return accuracy(evidence) if evidence.mirror is None else None


@dataclass(frozen=True)
class Measure:
    """What a number means, and where it comes from.

    Attributes:
        title: its column heading in a table.
        better: "higher", "lower", or "" where neither is.
        meaning: one sentence.
        one_sided: a high value shows something, a low one proves nothing.
        clips: name of the set of clips that it is taken on; by default the measure's own name.
        score: one score for each of these clips.
        guessing: percent that guessing gives: "one class" of all, "even" for two answers, "" where guessing has no one
            value.
    """

    title: str
    better: Literal["higher", "lower", ""]
    meaning: str
    one_sided: bool = False
    clips: str = ""
    score: Callable[[Evidence], Scores] = accuracy
    guessing: Literal["one class", "even", ""] = "one class"

    def guess(self, classes: int) -> float | None:
        """Percent that guessing gives among so many classes; None where it has no one value."""
        return {"one class": 100 / classes, "even": 50.0}.get(self.guessing)


# in the order of the tables
MEASURES = {
    "iid": Measure(
        "IID", "higher", "Accuracy on ordinary test videos, where appearance predicts the class as in training."
    ),
    "scuba": Measure("SCUBA", "higher", "Accuracy with the actor cut out and put before another background."),
    "scufo": Measure(
        "SCUFO",
        "lower",
        "Accuracy on one frame of a SCUBA video, repeated: nothing moves. Below guessing the label is avoided.",
    ),
    "scufo_least": Measure(
        "SCUFO least",
        "",
        "The label is the least likely class of a SCUFO clip. One in the number of classes by guessing; more often, "
        "the label is avoided, and so still known.",
        clips="scufo",
        score=_least_likely,
    ),
    "scufo_probe": Measure(
        "SCUFO probe",
        "lower",
        "A linear classifier reads the class from the logits of a SCUFO clip (cross-validated over source videos). "
        "Guessing is what it gives where a still frame says nothing.",
        clips="scufo",
        score=_probed,
    ),
    "scufo_feature_probe": Measure(
        "SCUFO feature probe",
        "lower",
        "The same from the features before the last layer.",
        clips="scufo",
        score=_features_probed,
    ),
    "contrasted": Measure(
        "Contrasted",
        "higher",
        "Right on a SCUBA video and wrong on its SCUFO twin.",
        clips="scufo",
        score=_contrasted,
        guessing="",
    ),
    "conflfg": Measure(
        "Confl-FG", "higher", "Names the moving actor's class although another class's actor stands next to it."
    ),
    "anti": Measure("Anti", "higher", "Accuracy when scene and actor are always another class's."),
    "swap": Measure("Swap", "higher", "Accuracy with an unseen scene and always another class's actor."),
    "unbiased": Measure("Unbiased", "higher", "Accuracy when scene and actor say nothing about the class."),
    "shaken_scufo": Measure(
        "Shaken SCUFO",
        "lower",
        "Accuracy on a SCUFO frame that jumps about: naming what moves by its appearance.",
        one_sided=True,
    ),
    "reversed_keep": Measure(
        "Reversed: keep",
        "lower",
        "A video played backwards keeps its class: direction is not read.",
        one_sided=True,
        clips="reversed",
        score=_keeps_class,
        guessing="",
    ),
    "reversed_flip": Measure(
        "Reversed: flip",
        "higher",
        "A video played backwards becomes the mirror class: direction is read.",
        one_sided=True,
        clips="reversed",
        score=_flips_class,
        guessing="",
    ),
    "reversed": Measure(
        "Reversed",
        "",
        "Accuracy on videos played backwards, whether that changes their class or not.",
        score=_reversed_accuracy,
    ),
    "shuffled": Measure(
        "Shuffled",
        "lower",
        "Accuracy with the frames in random order. Motion alone allows 50 where classes come in mirrored pairs.",
        one_sided=True,
    ),
    "static_iid": Measure("Static IID", "lower", "Accuracy on one frame of an ordinary video, repeated."),
    "conflfg_static": Measure(
        "Confl-FG static",
        "lower",
        "Names the class of the actor that stands still.",
        clips="conflfg",
        score=_static_actor,
    ),
    "conflfg_preference": Measure(
        "Confl-FG preference",
        "higher",
        "Gives the moving actor's class a higher probability than the still one's.",
        clips="conflfg",
        score=_preference,
        guessing="even",
    ),
    "static_entropy": Measure(
        "Static entropy",
        "higher",
        "How undecided the model is about SCUFO clips; 100 is evenly spread.",
        clips="scufo",
        score=_undecided,
        guessing="",
    ),
}


def plain_accuracy(name: str) -> Measure:
    """The measure of a set that has no other: accuracy, under the set's own name."""
    return Measure(name, "higher", "Accuracy.")


def measures_on(clips: str) -> dict[str, Measure]:
    """The measures that are taken on a set of clips, by name; plain accuracy for one that is not known here."""
    return {name: m for name, m in MEASURES.items() if (m.clips or name) == clips} or {clips: plain_accuracy(clips)}

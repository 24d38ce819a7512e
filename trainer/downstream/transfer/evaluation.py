"""``unstill transfer``: a linear probe of frozen encoders on other data sets, and fine-tuned runs; mean over splits.

The probe is multinomial logistic regression on standardised features, fitted to its end: no seed, no schedule. Its
penalty is the one of ``linear_probe.DECAYS`` with the least cross entropy on a fifth of the training videos, chosen
without the test videos; then it is fitted to all training videos. Videos of one source (``v_Archery_g01_c01`` and
``..._c02``) are never on both sides of that choice.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....pipeline.errors import InputError
from ...diagnostics.clip_features import ClipFeatures, clip_features
from ...evaluation.config import EvaluateOptions, TestSets
from ...evaluation.derived_clips import as_filmed
from ...evaluation.evaluate import evaluate
from ...evaluation.linear_probe import DECAYS, best_decay, fit, folds_of
from ...evaluation.protocols import correct
from ...evaluation.subject import Subject
from ..encoder import load_encoder
from .config import TransferConfig

_FOLDS = 5


@dataclass(frozen=True)
class TransferResult:
    """Of one model, or of the fine-tuned runs together.

    Attributes:
        name: of the model.
        right: bool (N,) of each split, which test videos are known.
        penalty: of each split's probe; empty for fine-tuned runs.
    """

    name: str
    right: tuple[np.ndarray, ...]
    penalty: tuple[float, ...] = ()

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Top-1 of each split, 0 to 1."""
        return tuple(float(split.mean()) for split in self.right)

    @property
    def mean(self) -> float:
        """Over the splits."""
        return float(np.mean(self.accuracy))


def run_transfer(config: TransferConfig) -> list[TransferResult]:
    """Measure every model on every split.

    Raises:
        InputError: a model or dataset cannot be used, or classes differ.
    """
    options = EvaluateOptions(
        views=config.views, batch_size=config.batch_size, device=config.device, probe_features=False
    )
    if config.fine_tuned:
        pairs = zip(config.models, config.test, strict=True)
        found = [known_by(_subject(model, config), test, options) for model, test in pairs]
        return [TransferResult("fine-tuned", tuple(found))]
    results = []
    for model in config.models:
        subject = _subject(model, config)
        seen: dict[Path, ClipFeatures] = {}  # splits may share a data set
        for path in (*config.train, *config.test):
            if path not in seen:
                seen[path] = clip_features([subject], path, {"filmed": as_filmed}, options, [config.layer])[model]
        pairs = [(seen[train], seen[test]) for train, test in zip(config.train, config.test, strict=True)]
        splits = [known_by_probe(*pair, config.layer) for pair in pairs]
        results.append(TransferResult(model, *map(tuple, zip(*splits, strict=True))))
    return results


def known_by_probe(train: ClipFeatures, test: ClipFeatures, layer: str) -> tuple[np.ndarray, float]:
    """(bool (N,): the test videos whose class the probe finds, the chosen penalty).

    Raises:
        InputError: a test class is none of the training classes, a video is in both, or there are too few videos.
    """
    number = {name: n for n, name in enumerate(train.classes)}
    unknown = next((name for name in test.classes if name not in number), None)
    if unknown is not None:
        raise InputError(f"class {unknown!r} of the test set is none of training; convert it with --classes")
    both = set(train.keys) & set(test.keys)
    if both:
        raise InputError(f"{len(both)} videos are in training and test, first {min(both)}; give disjoint lists")
    x, y = train.values["filmed", layer].astype(np.float64), train.labels
    groups = [source_of(key, train.classes[label]) for key, label in zip(train.keys, y.tolist(), strict=True)]
    if len(set(groups)) < _FOLDS:
        raise InputError(f"training videos of {len(set(groups))} sources; expected at least {_FOLDS}")
    held_out = folds_of(y, groups, _FOLDS) == 0
    penalty = best_decay(x, y, len(train.classes), ~held_out, held_out, DECAYS, None)
    probe = fit(x, y, len(train.classes), penalty)
    found = probe.log_probabilities(test.values["filmed", layer].astype(np.float64)).argmax(1)
    labels = np.array([number[name] for name in test.classes])[test.labels]
    return found == labels, penalty


def known_by(subject: Subject, test: Path, options: EvaluateOptions) -> np.ndarray:
    """bool (N,): the videos whose class a network's own last layer finds; probabilities averaged over views, as in
    `unstill evaluate`."""
    result = evaluate([subject], TestSets(others={"test": test}), options)[subject.name]
    return correct(result.predictions["test"])


def source_of(key: str, label: str) -> str:
    """What clips of one source video share in their key: without the number of the clip of UCF101 and HMDB51.

    Where that leaves nothing but the class, as of ``class_000123``, each video is a source of its own.
    """
    source = re.sub(r"_(?:c[0-9]+|[0-9]+)$", "", key)
    return key if source == re.sub(r"[^A-Za-z0-9_-]", "_", label) else source


def _subject(model: str, config: TransferConfig) -> Subject:
    classifier, facts = load_encoder(model, trust_model_code=config.trust_model_code)
    return Subject(model, classifier.model, facts.classes, facts.clip, facts.mean, facts.std)

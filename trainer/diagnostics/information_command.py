"""``unstill diagnose information``: what can be read of class, scene or actor in features."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...pipeline.errors import InputError
from ..evaluation.derived_clips import ClipTransform, as_filmed, shuffled, still
from ..evaluation.facts import describe_dataset, describe_runs
from ..evaluation.protocols import source_video
from ..evaluation.subject import load_subject
from ..evaluation.truth import read_truth
from .clip_features import clip_features
from .config import InformationConfig
from .information import Information, information
from .presentation import Bar, Chart, Diagnosis, Table, interval, number

SHOWS = (
    "A lower bound of the mutual information between features and an attribute of the video, in nats, and as a share "
    "of what there is to know. Other attributes than the class are asked for given the class: what features say beyond "
    "it.",
    "It is what a linear layer can read on videos that it was not trained on, with as many videos as there are. "
    "Features may hold more, and a classifier need not use what they hold. Accuracy alone misses what this sees: a "
    "label that a model puts last is known as well as one that it puts first.",
)
_KINDS = {"filmed": as_filmed, "still": still, "shuffled": shuffled}


def diagnose_information(config: InformationConfig) -> Diagnosis:
    """Measure every model, kind of clips, layer and attribute.

    Raises:
        InputError: a model or dataset cannot be used, or a video's row or column is missing.
    """
    found = measure_information(config)
    rows, bars = [], []
    for (model, kind, layer, target), value in found.items():
        right = f"{number(100 * value.accuracy)} ({number(100 * value.base)})"
        nats, share = interval(value.bound, value.low, value.high), number(100 * value.share)
        rows.append((model, f"{kind}, {layer}", target, nats, number(value.entropy), share, right))
    for kind, layer, target in dict.fromkeys(place[1:] for place in found):
        for model in dict.fromkeys(place[0] for place in found):
            value = found.get((model, kind, layer, target))
            if value is not None and value.entropy > 0:
                ends = [100 * v / value.entropy for v in _ends(value)]
                bars.append(Bar(f"{target}, {kind} clips, {layer}", model, 100 * value.share, *ends))
    return Diagnosis(
        name="information",
        title="What do the features know: class, scene, actor?",
        shows=SHOWS,
        content=[
            dict(zip(("model", "clips", "layer", "target"), place, strict=True))
            | asdict(value)
            | {"share": value.share}
            for place, value in found.items()
        ],
        charts=[Chart("Share of what there is to know, percent", bars, 100.0, "Lines: 95 % intervals over videos.")],
        tables=[
            Table(
                "Information in features",
                ("model", "clips, layer", "about", "nats", "of", "share, %", "right, %"),
                rows,
                "Nats with 95 % intervals over videos, of the entropy that there is to know; right: how often the "
                "probe is, and how often without the features, by the class alone.",
                text=("clips, layer", "about"),
            )
        ],
        facts={
            **describe_runs(config.runs),
            "data": describe_dataset(config.data),
            "probe": f"linear, L2 chosen inside the training folds, {config.folds} folds by source video"
            + (", own for each class" if config.by_class else ""),
            "seed": str(config.run.seed),
        },
    )


def measure_information(config: InformationConfig) -> dict[tuple[str, str, str, str], Information]:
    """(model, kind of clips, layer, attribute) -> bound."""
    subjects = [load_subject(run, trust_model_code=config.trust_model_code) for run in config.runs]
    transforms: dict[str, ClipTransform] = {
        kind: lambda frames, keys, make=_KINDS[kind]: make(frames, keys, config.run.seed) for kind in config.clips
    }
    features = clip_features(subjects, config.data, transforms, config.run, config.layers)
    first = next(iter(features.values()))
    columns = attributes(config, first.keys)
    groups = [source_video(key) for key in first.keys]
    found = {}
    for model, of in features.items():
        for (kind, layer), z in of.values.items():
            try:
                ask = {"class": (of.labels, None)} | {f"{c} | class": (v, of.labels) for c, v in columns.items()}
                for target, (b, given) in ask.items():
                    found[model, kind, layer, target] = information(
                        z, b, given, groups, by_class=config.by_class and given is not None, folds=config.folds
                    )
            except ValueError as error:
                raise InputError(f"{config.data}, {layer} of {model}: {error}") from None
    return found


def attributes(config: InformationConfig, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Column -> int64 (N,), its values numbered in sorted order.

    Raises:
        InputError: a video is not in a file, or a file has no such column.
    """
    found: dict[str, list] = {}
    if config.truth is not None:
        rows = _readable(config.truth)
        for column in config.columns:
            found[column] = [_cell(rows, key, column, config.truth) for key in keys]
    if config.scenes is not None:
        try:
            with np.load(config.scenes, allow_pickle=False) as file:
                best = dict(zip(file["keys"].tolist(), file["probabilities"].argmax(1).tolist(), strict=True))
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{config.scenes}: not the scenes of `unstill scene-labels` ({error})") from None
        missing = next((key for key in keys if key not in best), None)
        if missing is not None:
            raise InputError(f"{config.scenes}: key {missing!r} is missing; label the scenes of {config.data}")
        found["scene"] = [best[key] for key in keys]
    return {name: np.unique(values, return_inverse=True)[1].astype(np.int64) for name, values in found.items()}


def _readable(path: Path) -> dict[str, dict[str, str]]:
    try:
        return read_truth(path)
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: not readable ({error}); expected a CSV with the column key and others") from None


def _cell(rows: dict[str, dict[str, str]], key: str, column: str, path: Path) -> str:
    if key not in rows:
        raise InputError(f"{path}: key {key!r} is missing; every video of the dataset needs a row")
    if column not in rows[key]:
        raise InputError(
            f"{path}: no column {column!r}; it has {', '.join(name for name in rows[key] if name != 'key')}"
        )
    return rows[key][column]


def _ends(value: Information) -> tuple[float, float]:
    return value.low, value.high

"""``unstill detect``: from frozen networks and boxes to frame-mAP and video-mAP.

Each key frame's box of a training tube is an example of the tube's class; with a detector's boxes of the training
videos those that overlap no true box are examples of the background. A multinomial logistic regression on standardised
features is fitted to its end: no seed, no schedule. A test box has the class probabilities of the nearest key frame of
its tube, times its own score where a detector gave one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ....pipeline.errors import InputError
from ....pipeline.loading.cpu_threads import leave_a_core_for_decoding
from ....pipeline.loading.frame_walk import FrameWalk
from ....pipeline.loading.loader_config import LoaderConfig
from ....pipeline.shards.index import SampleIndex
from ...evaluation.linear_probe import LinearProbe, fit
from ...inference.classifier import Classifier, Facts
from ..detection_map import DetectionMap, bootstrap, frame_map, video_map
from ..encoder import load_encoder
from ..features.extract import own_device
from ..ranking import Interval
from .config import DetectConfig, ScoreConfig
from .placement import (
    PlacedTubes,
    check_videos_known,
    detected_tubes,
    placed_tubes,
    refuse_misfits,
    refuse_other_rate,
    unknown_videos,
)
from .roi_features import TubeFeatures, tube_features
from .tubes import Tube, TubeFile, box_iou, linked, read_tubes

LEAST_OVERLAP, MOST_OVERLAP = 0.5, 0.3  # a detector's box is a person from the first on, background up to the second
_BACKGROUND = "\0background"


@dataclass(frozen=True)
class DetectResult:
    """Of one model.

    Attributes:
        name: of the model.
        frames, videos: the measures.
        found: detections, tubes with class and scores.
    """

    name: str
    frames: DetectionMap
    videos: DetectionMap
    found: tuple[Tube, ...]


@dataclass(frozen=True)
class DetectReport:
    """What a call found.

    Attributes:
        results: one a model.
        truth: the test tubes.
        left_out: annotations that were left out, a line each.
        cut: tubes cut at the last frame of their video.
        gains: of each model against the first, "frame .5" and "video .5", with intervals; empty for the first.
    """

    results: tuple[DetectResult, ...]
    truth: tuple[Tube, ...]
    left_out: tuple[str, ...]
    cut: int
    gains: tuple[dict[str, Interval], ...]


def run_detect(config: DetectConfig) -> DetectReport:
    """Fit and measure each model.

    Raises:
        InputError: a file, dataset or model cannot be used, or annotations do not fit and are to be refused.
    """
    train, test = SampleIndex.load(config.train), SampleIndex.load(config.test)
    truth = read_tubes(config.truth)
    check_videos_known(truth, [train, test], config)
    if config.truth_fps is None:
        refuse_other_rate(config)
    placed = {name: placed_tubes(truth, index, config) for name, index in (("train", train), ("test", test))}
    problems = refuse_misfits(list(placed.values()), config.truth, config.bad_annotations)
    for name, tubes in placed.items():
        if not tubes.of_row:
            raise InputError(f"{config.truth}: has boxes of none of the {name} videos; expected names or keys of them")
    boxes = placed["test"] if config.boxes is None else detected_tubes(config.boxes, test, config)
    extra = None if config.train_boxes is None else detected_tubes(config.train_boxes, train, config)
    results = [_one_model(model, config, placed["train"], extra, boxes, placed["test"]) for model in config.models]
    missing = tuple(sorted(unknown_videos(truth, [train, test])))
    of_detector = [line for tubes in (boxes, extra) if tubes and tubes is not placed["test"] for line in tubes.left_out]
    left_out = (*problems, *of_detector, *(f"{video}: in neither dataset" for video in missing))
    first, gains = results[0], [{}]
    for result in results[1:]:
        pairs = {"frame .5": (first.frames, result.frames), "video .5": (first.videos, result.videos)}
        gains.append({name: bootstrap(*pair, 0.5, config.resamples) for name, pair in pairs.items()})
    cut = sum(tubes.cut for tubes in placed.values())
    return DetectReport(tuple(results), tuple(placed["test"].all()), left_out, cut, tuple(gains))


def examples(
    tubes: Sequence[Tube], features: Sequence[TubeFeatures], truth: Sequence[Tube] | None = None
) -> tuple[list[np.ndarray], list[str]]:
    """Vectors (D,) of the key frames' boxes, and their classes.

    Args:
        tubes, features: of one video.
        truth: None: the tubes' own classes. Else each box has the class of the true box that it overlaps most, by at
            least 0.5, is background if it overlaps none by more than 0.3, and is left out in between.
    """
    vectors, labels = [], []
    for tube, found in zip(tubes, features, strict=True):
        for row, vector in zip(found.rows.tolist(), found.values, strict=True):
            label = tube.label if truth is None else _label_by_overlap(int(tube.frames[row]), tube.boxes[row], truth)
            if label is not None:
                vectors.append(vector)
                labels.append(label)
    return vectors, labels


def scored(
    tube: Tube, features: TubeFeatures, probe: LinearProbe, classes: Sequence[str], *, times_own: bool
) -> list[Tube]:
    """The tube once for each class, each box with the class's probability at the nearest key frame, the earlier of two.

    Args:
        times_own: multiply by the box's own score.
    """
    probability = np.exp(probe.log_probabilities(features.values.astype(np.float64)))
    keys = tube.frames[features.rows]
    nearest = np.abs(tube.frames[:, None] - keys).argmin(1)
    own = tube.scores if times_own else np.ones(len(tube))
    return [
        replace(tube, label=name, scores=probability[nearest, number] * own)
        for number, name in enumerate(classes)
        if name != _BACKGROUND
    ]


def run_score(config: ScoreConfig) -> tuple[DetectionMap, DetectionMap]:
    """(frame-mAP, video-mAP) of files.

    Raises:
        InputError: a file is not readable, or one has pixels, the other shares, and the picture's size is not given.
    """
    truth, found = read_tubes(config.truth), read_tubes(config.found)
    if truth.pixels != found.pixels:
        if config.picture is None:
            raise InputError(
                f"{config.truth} and {config.found}: one has pixels, the other shares of the picture; give --picture "
                "WIDTH HEIGHT"
            )
        truth, found = (file.in_shares(*config.picture) for file in (truth, found))
    for path, file in ((config.truth, truth), (config.found, found)):
        if any(not tube.label for tube in file.tubes):
            raise InputError(f"{path}: boxes without a class; expected the column label")
        turned = next((t for t in file.tubes if not (t.boxes[:, :2] < t.boxes[:, 2:]).all()), None)
        if turned is not None:
            raise InputError(f"{path}: {turned.video} has a box whose right or lower side comes before the other")
    there, said = _as_tubes(truth), _as_tubes(found)
    return frame_map(there, said, config.rules), video_map(there, said, config.rules)


def _as_tubes(file: TubeFile) -> list[Tube]:
    """Tubes as they are, or linked where each box stands alone."""
    return linked(file.tubes) if all(len(tube) == 1 for tube in file.tubes) else list(file.tubes)


def _one_model(
    model: str,
    config: DetectConfig,
    train: PlacedTubes,
    extra: PlacedTubes | None,
    boxes: PlacedTubes,
    truth: PlacedTubes,
) -> DetectResult:
    classifier, facts = load_encoder(model, trust_model_code=config.trust_model_code)
    device = own_device(config.device)
    classifier.to(device)
    of_train = _features(config.train, train, classifier, facts, config)
    vectors, labels = [], []
    for row, features in of_train.items():
        more, classes_of = examples(train.of_row[row], features)
        vectors += more
        labels += classes_of
    if extra is not None:
        for row, features in _features(config.train, extra, classifier, facts, config).items():
            more, classes_of = examples(extra.of_row[row], features, train.of_row.get(row, []))
            vectors += more
            labels += classes_of
    classes = sorted(set(labels))
    if len(set(classes) - {_BACKGROUND}) < 2:
        raise InputError(f"{config.truth}: training boxes of {len(classes)} class; expected the column label with 2")
    numbers = np.array([classes.index(label) for label in labels])
    probe = fit(np.stack(vectors), numbers, len(classes), config.penalty)
    found: list[Tube] = []
    for row, features in _features(config.test, boxes, classifier, facts, config).items():
        for tube, own in zip(boxes.of_row[row], features, strict=True):
            found += scored(tube, own, probe, classes, times_own=config.boxes is not None)
    there, rules = truth.all(), config.rules
    return DetectResult(model, frame_map(there, found, rules), video_map(there, found, rules), tuple(found))


def _features(
    dataset: Path, tubes: PlacedTubes, classifier: Classifier, facts: Facts, config: DetectConfig
) -> dict[int, list[TubeFeatures]]:
    device = next(classifier.parameters()).device
    with (
        FrameWalk(
            dataset,
            facts.clip.size,
            threads=config.core_threads,
            device=device.type,
            config=LoaderConfig(isolate=config.isolate),
        ) as walk,
        leave_a_core_for_decoding(device),
    ):
        found, bad = tube_features(
            walk,
            tubes.of_row,
            classifier,
            facts.clip,
            layer=config.layer,
            every=config.every,
            batch_size=config.batch_size,
            device=device,
        )
    if bad:
        raise InputError(f"{dataset}: {len(bad)} videos are damaged, first {bad[0]}; repair or drop them")
    return found


def _label_by_overlap(frame: int, box: np.ndarray, truth: Sequence[Tube]) -> str | None:
    best, label = 0.0, _BACKGROUND
    for tube in truth:
        at = int(np.searchsorted(tube.frames, frame))
        if at < len(tube) and int(tube.frames[at]) == frame:
            overlap = float(box_iou(box, tube.boxes[at : at + 1])[0])
            if overlap > best:
                best, label = overlap, tube.label
    if best >= LEAST_OVERLAP:
        return label
    return _BACKGROUND if best <= MOST_OVERLAP else None

"""``unstill localise``: training on one subset, detections and mean average precision on another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ....pipeline.errors import InputError
from ....pipeline.loading.device import resolve_device
from ..feature_folder import FeatureFolder
from ..temporal_map import (
    ACTIVITYNET,
    THUMOS_ALL,
    THUMOS_UPPER,
    MeanAveragePrecision,
    Segments,
    mean_average_precision,
)
from .annotations import read_annotations
from .config import LocaliseConfig
from .network import LocalisationHead
from .training import HeadTraining, TrainingVideo, find, train_head
from .videos import LocatedVideo, UsableVideos, read_rows, row_of_second, second_of_row, truth_of, usable_videos

# what is averaged over, by the name that tables call it
AVERAGES = {
    "thumos": {".1 to .7": THUMOS_ALL, ".3 to .7": THUMOS_UPPER},
    "activitynet": {".5 to .95": ACTIVITYNET},
}
THRESHOLDS = {"thumos": THUMOS_ALL, "activitynet": ACTIVITYNET}


@dataclass(frozen=True)
class LocaliseResult:
    """What was found.

    Attributes:
        folder: of the features.
        classes: K names, those of the training videos.
        train, test: the videos.
        found: seed -> detections in the test videos.
        measures: seed -> mean average precision.
    """

    folder: FeatureFolder
    classes: tuple[str, ...]
    train: UsableVideos
    test: UsableVideos
    found: Mapping[int, Segments]
    measures: Mapping[int, MeanAveragePrecision]

    def mean(self) -> MeanAveragePrecision:
        """Mean over the seeds."""
        first = next(iter(self.measures.values()))
        table = np.mean([measure.table for measure in self.measures.values()], axis=0)
        ignored = sum(measure.ignored for measure in self.measures.values())
        return MeanAveragePrecision(first.classes, first.thresholds, table, ignored)


def run_localise(config: LocaliseConfig) -> LocaliseResult:
    """Train and measure.

    Raises:
        InputError: features or annotations cannot be used; the message says which and why.
    """
    folder = FeatureFolder.open(config.features, window=config.window, stride=config.stride)
    annotated = read_annotations(config.annotations)
    train, test = (
        usable_videos(
            folder,
            annotated,
            subset,
            path=config.annotations,
            fps=config.fps,
            rule=config.bad_annotations,
        )
        for subset in (config.train_subset, config.test_subset)
    )
    classes = tuple(sorted({action.label for video in train.videos for action in video.annotated.actions}))
    device = resolve_device(config.device)
    material = [training_video(folder, video, classes) for video in train.videos]
    _refuse_widths(folder, train.videos, material)
    how = HeadTraining(config.epochs, config.batch_size, config.lr, config.channels, config.longest)
    found: dict[int, Segments] = {}
    for seed in config.seeds:
        head = train_head(material, len(classes), how, seed=seed, device=device)
        found[seed] = find_in(head, folder, test.videos, classes, device)
    truth, thresholds = truth_of(test.videos), THRESHOLDS[config.tiou]
    measures = {seed: mean_average_precision(truth, segments, thresholds) for seed, segments in found.items()}
    return LocaliseResult(folder, classes, train, test, found, measures)


def training_video(folder: FeatureFolder, video: LocatedVideo, classes: Sequence[str]) -> TrainingVideo:
    """A video's rows, and its actions on their axis.

    Raises:
        InputError: see ``FeatureFolder.read``.
    """
    actions = video.annotated.actions
    times = np.array([(action.start, action.end) for action in actions], np.float64).reshape(-1, 2)
    start, end = torch.from_numpy(row_of_second(times, folder, video.fps)).float().unbind(1)
    label = torch.tensor([classes.index(action.label) for action in actions], dtype=torch.int64)
    return TrainingVideo(torch.from_numpy(read_rows(folder, video)), start, end, label)


def find_in(
    head: LocalisationHead, folder: FeatureFolder, videos: Sequence[LocatedVideo], classes: Sequence[str], device: str
) -> Segments:
    """What a head finds in videos, in seconds, cut at their ends; what lies beyond them is dropped.

    Raises:
        InputError: features cannot be used.
    """
    names: list[str] = []
    labels: list[str] = []
    columns: tuple[list[np.ndarray], ...] = ([], [], [])
    for video in videos:
        rows = torch.from_numpy(read_rows(folder, video))
        width = head.embed[0].conv.in_channels  # type: ignore[union-attr]
        if rows.shape[1] != width:
            raise InputError(f"{folder.files[video.key]}: width {rows.shape[1]}, of the training videos {width}")
        found = find(head, rows, device)
        start, end = (second_of_row(side, folder, video.fps).clip(0, video.length) for side in (found.start, found.end))
        good = start < end
        names += [video.annotated.video] * int(good.sum())
        labels += [classes[int(k)] for k in found.label[good]]
        for column, value in zip(columns, (start, end, found.score), strict=True):
            column.append(value[good])
    start, end, score = (np.concatenate(column) for column in columns)
    return Segments(names, labels, start, end, score)


def _refuse_widths(folder: FeatureFolder, videos: Sequence[LocatedVideo], material: Sequence[TrainingVideo]) -> None:
    for video, own in zip(videos, material, strict=True):
        if own.rows.shape[1] != material[0].rows.shape[1]:
            raise InputError(
                f"{folder.files[video.key]}: width {own.rows.shape[1]}, of others {material[0].rows.shape[1]}"
            )

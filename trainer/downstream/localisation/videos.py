"""Annotated videos with their features: which can be used, by the rules of ``--bad-annotations``."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....pipeline.errors import InputError
from ..feature_folder import FeatureFolder
from ..head_config import BadAnnotations, refuse_or_leave_out
from ..temporal_map import Segments
from .annotations import AnnotatedVideo, problem_of, subset_of, tidied

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocatedVideo:
    """A video whose annotation fits its features.

    Attributes:
        annotated: its annotation, tidied.
        key: of its features.
        frames, fps: of the video that they were made of.
    """

    annotated: AnnotatedVideo
    key: str
    frames: int
    fps: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.frames / self.fps


@dataclass(frozen=True)
class UsableVideos:
    """Of one subset.

    Attributes:
        videos: those that can be used.
        left_out: "video: reason" of the others.
        notes: what was changed or is remarkable, see ``tidied``.
    """

    videos: tuple[LocatedVideo, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def usable_videos(
    folder: FeatureFolder,
    annotated: Sequence[AnnotatedVideo],
    subset: str,
    *,
    path: Path,
    fps: float | None,
    rule: BadAnnotations,
) -> UsableVideos:
    """The videos of a subset that can be used.

    Args:
        folder: of features.
        annotated: all videos of the annotation file.
        subset: which.
        path: of the annotation file, for messages.
        fps: of features without a record.
        rule: what to do with videos that cannot be used.

    Raises:
        InputError: some cannot be used and are to be refused, or none is left.
    """
    kept, bad, notes = [], [], []
    chosen = subset_of(annotated, subset, path)
    for video in chosen:
        key = folder.key_of(video.video)
        if key is None:
            bad.append(f"{video.video}: no features in {folder.path}")
            continue
        facts = folder.facts(key, folder.rows(key))
        rate = facts.fps or fps
        if rate is None:
            raise InputError(f"{folder.path}: no record says at how many frames/s it was made; give --fps")
        # without a record the frames behind the last row are not known, up to a stride of them
        problem = problem_of(video, facts.frames, rate, max(folder.window, folder.stride))
        if problem is not None:
            bad.append(f"{video.video}: {problem}")
            continue
        good, said = tidied(video, facts.frames / rate)
        kept.append(LocatedVideo(good, key, facts.frames, rate))
        notes += said
    refuse_or_leave_out(bad, f"{len(chosen)} videos of {subset}", path, rule)
    if notes:
        log.warning("%d remarks on annotations of %s, first: %s", len(notes), subset, notes[0])
    if not any(video.annotated.actions for video in kept):
        raise InputError(f"{path}: no actions are left in {len(kept)} videos of {subset}; expected some")
    return UsableVideos(tuple(kept), tuple(bad), tuple(notes))


def truth_of(videos: Sequence[LocatedVideo]) -> Segments:
    """All actions of the videos."""
    rows = [(video.annotated.video, action) for video in videos for action in video.annotated.actions]
    return Segments(
        [video for video, _ in rows],
        [action.label for _, action in rows],
        np.array([action.start for _, action in rows], np.float64),
        np.array([action.end for _, action in rows], np.float64),
    )


def read_rows(folder: FeatureFolder, video: LocatedVideo) -> np.ndarray:
    """float32 (T,D), the mean over crops.

    Raises:
        InputError: see ``FeatureFolder.read``.
    """
    return folder.read(video.key).mean(1)


def row_of_second(seconds: np.ndarray, folder: FeatureFolder, fps: float) -> np.ndarray:
    """Where times lie on the axis of rows; the middle of row k's window, (k stride + window / 2) / fps s, is k."""
    return (seconds * fps - folder.window / 2) / folder.stride


def second_of_row(rows: np.ndarray, folder: FeatureFolder, fps: float) -> np.ndarray:
    """The inverse of ``row_of_second``."""
    return (rows * folder.stride + folder.window / 2) / fps

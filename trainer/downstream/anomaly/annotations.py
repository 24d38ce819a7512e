"""UCF-Crime's list of training videos and its temporal annotation of the test videos, as published.

    Abuse/Abuse001_x264.mp4                                       Anomaly_Train.txt
    Training_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4
    Abuse028_x264.mp4  Abuse  165  240  -1  -1                    Temporal_Anomaly_Annotation_for_Testing_Videos.txt

The four numbers are the first and the last frame of up to two anomalies, or -1. Frames count from 1 and both ends
belong to the anomaly, as in the evaluation of the authors, which also reads a 0 as 1. Other data may use the same form
with more pairs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....pipeline.bounded_files import read_bounded
from ....pipeline.errors import InputError

_LIST_BYTES = 64 << 20
_TRAIN = re.compile(r"(?P<label>[^/\s]+)/(?:\S+/)?(?P<video>[^/\s]+?)(?:\.\w+)?")
_TRUTH = re.compile(r"(?:\S+/)?(?P<video>[^/\s]+?)(?:\.\w+)?\s+(?P<label>[A-Za-z_]\w*)(?P<frames>(?:\s+-?\d+)+)")


@dataclass(frozen=True)
class TrainVideo:
    """A training video.

    Attributes:
        video: file name without suffix.
        abnormal: whether something abnormal happens in it, at an unknown time.
    """

    video: str
    abnormal: bool


@dataclass(frozen=True)
class AnnotatedVideo:
    """A test video.

    Attributes:
        video: file name without suffix.
        label: its class.
        anomalies: (first, last) frame of each anomaly, from 1, both included, as the file says.
    """

    video: str
    label: str
    anomalies: tuple[tuple[int, int], ...]


def read_train_list(path: Path) -> list[TrainVideo]:
    """The training videos; normal are those with "normal" in the name of their folder.

    Raises:
        InputError: a line of another form, a video named twice, or only one of the two kinds.
    """
    found = []
    for number, line in _lines(path):
        match = _TRAIN.fullmatch(line)
        if match is None:
            raise InputError(f"{path}: line {number} is {line!r}, expected CLASS/VIDEO.mp4")
        found.append(TrainVideo(match["video"], not says_normal(match["label"])))
    _refuse_twice(path, [video.video for video in found])
    if len({video.abnormal for video in found}) < 2:
        raise InputError(f"{path}: expected normal and abnormal videos; the folders of normal ones say Normal")
    return found


def read_truth(path: Path) -> list[AnnotatedVideo]:
    """The test videos.

    Raises:
        InputError: a line of another form, a video named twice.
    """
    found = []
    for number, line in _lines(path):
        match = _TRUTH.fullmatch(line)
        numbers = [int(n) for n in match["frames"].split()] if match else []
        if match is None or len(numbers) % 2:
            raise InputError(
                f"{path}: line {number} is {line!r}, expected VIDEO.mp4, a class and pairs of frames or -1"
            )
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        found.append(AnnotatedVideo(match["video"], match["label"], tuple(p for p in pairs if p != (-1, -1))))
    _refuse_twice(path, [video.video for video in found])
    return found


def says_normal(name: str) -> bool:
    """Whether the name of a class or folder says that its videos are normal; ``Abnormal`` does not."""
    return "normal" in name.lower().replace("abnormal", "")


def problem_of(video: AnnotatedVideo, frames: int, fps: float | None, truth_fps: float, slack: int) -> str | None:
    """What is wrong with an annotation, in a few words; None when nothing is.

    Args:
        video: the annotation.
        frames, fps: of the video that features were made of; fps None where that is not known.
        truth_fps: frame rate that the annotation counts frames in.
        slack: frames by which an anomaly may reach beyond the last frame; it is then cut there.
    """
    if fps is not None and abs(fps - truth_fps) > 0.01 * truth_fps:
        return f"features at {fps:g} frames/s, annotation at {truth_fps:g}"
    before = -1
    for first, last in sorted(video.anomalies):
        span = f"anomaly {first} to {last}"
        if first < 0 or last < 0:
            return f"{span} has one end only"
        if first > last:
            return f"{span} is reversed"
        if first > frames or last > frames + slack:
            return f"{span} reaches beyond the {frames} frames"
        if first <= before:
            return f"{span} overlaps another"
        before = last
    if video.anomalies and says_normal(video.label):
        return "a normal video with an anomaly"
    if not video.anomalies and not says_normal(video.label):
        return f"class {video.label}, but no anomaly"
    return None


def frame_truth(video: AnnotatedVideo, frames: int) -> np.ndarray:
    """bool (frames,): which frames are abnormal; what lies beyond the last one is cut."""
    truth = np.zeros(frames, bool)
    for first, last in video.anomalies:
        truth[max(first, 1) - 1 : last] = True
    return truth


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = read_bounded(path, _LIST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a list of videos") from None
    found = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise InputError(f"{path}: is empty; expected a list of videos")
    return found


def _refuse_twice(path: Path, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{path}: names {name} twice; remove one line")
        seen.add(name)

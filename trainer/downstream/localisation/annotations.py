"""Annotations of actions in time, in the JSON of ActivityNet, which THUMOS14's are published in, too.

    {"database": {"video_test_0000004": {"subset": "Test", "duration": 33.4, "fps": 30.0, "annotations": [
        {"segment": [0.2, 1.1], "label": "CricketBowling", "label_id": 5}, ...]}, ...}}

Times are in seconds. ``duration``, ``fps`` and ``label_id`` may be missing. No time is ever converted or moved: an
annotation fits the frames that features were made of, or its video cannot be used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from ....pipeline.bounded_files import parse_json, read_bounded
from ....pipeline.errors import InputError

_BYTES = 256 << 20
_SAME = 1e-3  # s: two segments of one label with ends that differ less are one, as in ActionFormer's evaluation
_FPS_DIFFERENCE = 0.01  # of two frame rates that count as one: 29.97 and 30 do
AMBIGUOUS = "Ambiguous"  # THUMOS14's label of what is neither right nor wrong; left out there, too


@dataclass(frozen=True)
class Action:
    """One action.

    Attributes:
        label: its class.
        start, end: seconds.
    """

    label: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.label} from {self.start:g} to {self.end:g} s"


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video.

    Attributes:
        video: its name.
        subset: in small letters.
        duration: seconds; None where it is not given.
        fps: frames per second; None where it is not given.
        actions: in it, as the file says.
    """

    video: str
    subset: str
    duration: float | None
    fps: float | None
    actions: tuple[Action, ...]


def read_annotations(path: Path) -> list[AnnotatedVideo]:
    """All videos of an annotation file.

    Raises:
        InputError: not such a file, a video named twice, or a segment that is no pair of finite numbers.
    """
    try:
        content = parse_json(read_bounded(path, _BYTES), object_pairs_hook=_no_name_twice)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected annotations in ActivityNet's JSON") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise InputError(f'{path}: no videos in "database"; expected annotations in ActivityNet\'s JSON')
    found = []
    for video, entry in database.items():
        try:
            found.append(_video(video, entry))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(
                f'{path}: video {video} is damaged ({type(error).__name__}: {error}); expected "subset" and '
                '"annotations" with "segment" [start, end] in seconds and "label"'
            ) from None
    return found


def subset_of(videos: Sequence[AnnotatedVideo], subset: str, path: Path) -> list[AnnotatedVideo]:
    """The videos of a subset.

    Raises:
        InputError: there are none; the message names those that there are.
    """
    found = [video for video in videos if video.subset == subset.lower()]
    if not found:
        known = ", ".join(sorted({video.subset for video in videos}))
        raise InputError(f"{path}: no videos of subset {subset}; it has {known}")
    return found


def problem_of(video: AnnotatedVideo, frames: int, fps: float, slack: int) -> str | None:
    """Why a video cannot be used, in a few words; None when it can.

    Args:
        video: its annotation.
        frames, fps: of the video that features were made of.
        slack: frames by which an action may reach beyond the last frame; it is then cut there.
    """
    if video.fps is not None and abs(video.fps - fps) > _FPS_DIFFERENCE * fps:
        return f"features at {fps:g} frames/s, annotation at {video.fps:g}"
    length = frames / fps
    if video.duration is not None and abs(video.duration - length) > max(0.01 * length, slack / fps):
        return f"features of {length:.2f} s, annotation of {video.duration:g} s"
    for action in video.actions:
        if not action.start < action.end:
            return f"{action} is reversed or empty"
        if action.start < 0:
            return f"{action} starts before the video"
        if action.start >= length or action.end > length + slack / fps:
            return f"{action} reaches beyond the end at {length:.2f} s"
    return None


def tidied(video: AnnotatedVideo, length: float) -> tuple[AnnotatedVideo, list[str]]:
    """A video that can be used, with what is changed or remarkable about it, in a few words each.

    Ambiguous segments and repetitions are left out; ends beyond the last frame are put there; segments of one class
    that overlap stay as they are.

    Args:
        video: its annotation, without a problem.
        length: seconds.
    """
    kept: list[Action] = []
    notes = []
    for action in video.actions:
        if action.label == AMBIGUOUS:
            notes.append(f"{video.video}: {action} left out")
            continue
        if any(_same(action, other) for other in kept):
            notes.append(f"{video.video}: {action} is there twice, counted once")
            continue
        if action.end > length:
            notes.append(f"{video.video}: {action} cut at {length:.2f} s")
            action = replace(action, end=length)
        kept.append(action)
    for one, other in pairwise(sorted(kept, key=lambda action: (action.label, action.start))):
        if one.label == other.label and other.start < one.end:
            notes.append(f"{video.video}: {one} overlaps {other}, both kept")
    return replace(video, actions=tuple(kept)), notes


def _same(one: Action, other: Action) -> bool:
    near = abs(one.start - other.start) <= _SAME and abs(one.end - other.end) <= _SAME
    return near and one.label == other.label


def _video(video: str, entry: dict[str, Any]) -> AnnotatedVideo:
    actions = []
    for item in entry.get("annotations") or ():
        start, end = (_finite(value, "segment") for value in item["segment"])
        actions.append(Action(_text(item["label"], "label"), start, end))
    duration, fps = (None if entry.get(name) is None else _finite(entry[name], name) for name in ("duration", "fps"))
    if fps is not None and fps <= 0:
        raise ValueError(f"fps is {fps:g}")
    return AnnotatedVideo(video, _text(entry["subset"], "subset").lower(), duration, fps, tuple(actions))


def _finite(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} holds {value!r}, no finite number")
    return float(value)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{what} is {value!r}, no text")
    return value


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice} is there twice")
    return found

"""A folder of features: one ``KEY.npy`` a video, and ``features.json`` that says how they were made.

Arrays are (T, D) or (T, crops, D), as the public code on UCF-Crime and THUMOS14 keeps them. Folders from elsewhere have
no ``features.json``: then the window is what the user says, and a video has as many frames as its windows cover.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...pipeline.bounded_files import check_plain, read_json
from ...pipeline.errors import InputError

RECORD = "features.json"


@dataclass(frozen=True)
class VideoFacts:
    """Of one video.

    Attributes:
        frames: number of frames.
        fps: frames per second; None where it is not known.
    """

    frames: int
    fps: float | None


@dataclass(frozen=True)
class FeatureFolder:
    """Where features are, and of which frames.

    Attributes:
        path: the folder.
        window, stride: frames that a row covers, and from one row to the next.
        files: key -> file.
        videos: key -> facts, from the record; empty without one.
    """

    path: Path
    window: int
    stride: int
    files: Mapping[str, Path]
    videos: Mapping[str, VideoFacts]

    @classmethod
    def open(cls, path: Path, *, window: int = 16, stride: int = 16) -> "FeatureFolder":
        """Look at a folder; no array is read.

        Args:
            path: the folder.
            window, stride: used where there is no record.

        Raises:
            InputError: no such folder, no features in it, or a damaged record.
        """
        files = {file.stem: file for file in sorted(path.rglob("*.npy"))} if path.is_dir() else {}
        if not files:
            raise InputError(f"{path}: no .npy files; expected a folder of features, one file a video")
        if not (path / RECORD).exists():
            return cls(path, window, stride, files, {})
        try:
            record = read_json(path / RECORD)
            videos = {
                key: VideoFacts(int(facts["frames"]), float(facts["fps"])) for key, facts in record["videos"].items()
            }
            window, stride = int(record["window"]), int(record["stride"])
            if min(window, stride) < 1:
                raise ValueError("window and stride below 1")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(f"{path / RECORD}: damaged ({type(error).__name__}: {error}); make it again") from None
        return cls(path, window, stride, files, videos)

    def key_of(self, video: str) -> str | None:
        """The key of a video by its file name without folder and suffix; None where there are no features of it.

        A key may have the folders before the name, as ``unstill convert`` makes keys (``Abuse_Abuse001_x264``), or the
        name of a network behind it, as published features have (``Abuse001_x264_i3d``).

        Raises:
            InputError: several keys fit.
        """
        if video in self.files:
            return video
        fits = re.compile(rf"(?:.*_)?{re.escape(video)}(?:_(?:i3d|c3d|swin|clip))?")
        found = [key for key in self.files if fits.fullmatch(key)]
        if len(found) > 1:
            raise InputError(f"{self.path}: {found[0]} and {found[1]} both fit video {video}; keep one")
        return found[0] if found else None

    def read(self, key: str) -> np.ndarray:
        """float32 (T, crops, D); one crop where the file has none.

        Raises:
            InputError: not such an array, an empty one, or numbers that are not finite.
        """
        found = np.asarray(self._load(key), np.float32)
        if not np.isfinite(found).all():
            raise InputError(f"{self.files[key]}: holds numbers that are not finite; make it again")
        return found[:, None] if found.ndim == 2 else found

    def rows(self, key: str) -> int:
        """T, from the header of the file alone.

        Raises:
            InputError: see ``read``.
        """
        return len(self._load(key))

    def _load(self, key: str) -> np.ndarray:
        """The array, as a map of its file."""
        path = self.files[key]
        try:
            found = np.load(check_plain(path), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: not an array of features ({error}); make it again") from None
        if not isinstance(found, np.ndarray) or found.ndim not in (2, 3) or not found.size or found.dtype.kind != "f":
            shape = getattr(found, "shape", None)
            raise InputError(f"{path}: {shape}, expected floating-point numbers (T, D) or (T, crops, D)")
        return found

    def facts(self, key: str, rows: int) -> VideoFacts:
        """Frames and frame rate of a video with ``rows`` rows.

        Raises:
            InputError: the record does not name it, or the rows are not those of its frames.
        """
        if not self.videos:
            return VideoFacts((rows - 1) * self.stride + self.window, None)
        if key not in self.videos:
            raise InputError(f"{self.path / RECORD}: does not name {key}; make the features again")
        frames = self.videos[key].frames
        expected = window_count(frames, self.window, self.stride)
        if rows != expected:
            raise InputError(f"{self.files[key]}: {rows} rows, expected {expected} of {frames} frames; make it again")
        return self.videos[key]


def window_count(frames: int, window: int, stride: int) -> int:
    """Windows that lie within a video; one, past its end, of a video shorter than a window."""
    return max(0, frames - window) // stride + 1


def row_of_frame(frames: int, rows: int, window: int, stride: int) -> np.ndarray:
    """int64 (frames,): the row whose window has its middle nearest to each frame, the earlier of two equally near.

    With windows that do not overlap this is the window that the frame lies in; frames behind the last window belong to
    it. Row k has its middle at k * stride + (window - 1) / 2.
    """
    twice = 2 * np.arange(frames) - (window - 1)  # twice the distance from the middle of row 0
    return np.clip(-((stride - twice) // (2 * stride)), 0, rows - 1)

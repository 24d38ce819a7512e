"""What the loader hands over, and what it counts."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class ClipSource:
    """Where the clips of a batch were cut, in the host's memory: nothing waits for the device to read it.

    Attributes:
        sample: int64 (B,), rows of the index.
        start_frame: int64 (B,), in frames of the video.
        region: float32 (B, 4), which part of the picture: top, left, height, width as shares of it.
    """

    sample: np.ndarray
    start_frame: np.ndarray
    region: np.ndarray


@dataclass(frozen=True)
class FrameTimes:
    """Which frames of its video each clip shows.

    Attributes:
        number: int64 (B, T), from 0.
        seconds: float64 (B, T), from the first frame of the video as it was converted.
    """

    number: np.ndarray
    seconds: np.ndarray


@dataclass
class Clips:
    """A batch on the device.

    Attributes:
        frames: uint8 (B, T, h, w, 3). On a GPU it is the decoder's memory: use it before asking for the next batch, or
            clone it.
        label: int64 (B,).
        sample: int64 (B,), row of the index; ``loader.index.key(row)`` is its name.
        position: int64 (B,), place in the stream of clips.
        start_frame: int64 (B,), in frames of the video.
        static_index: int64 (B,), which clip frame the static clip repeats.
        flip: bool (B,), still to be applied (``clip_prep`` does).
        draws: float32 (B, 8), uniform in [0, 1).
        prepared: what ``prepare`` returned for this batch, else None.
        source: where the clips were cut.
        per_sample: more tensors (B, ...) by name that ``prepare`` made.
    """

    frames: torch.Tensor
    label: torch.Tensor
    sample: torch.Tensor
    position: torch.Tensor
    start_frame: torch.Tensor
    static_index: torch.Tensor
    flip: torch.Tensor
    draws: torch.Tensor
    prepared: Any = None
    source: ClipSource | None = None
    per_sample: dict[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label)


@dataclass
class LoaderStats:
    """Running totals since the loader was made; ``wait_s`` is time that the training loop spent waiting."""

    clips: int = 0
    batches: int = 0
    wait_s: float = 0.0
    running_s: float = 0.0
    bytes_read: int = 0
    frames_decoded: int = 0
    frames_delivered: int = 0
    bad_clips: int = 0
    rebuilds: int = 0

    @property
    def clips_per_s(self) -> float:
        """Delivered clips per second of wall clock."""
        return self.clips / self.running_s if self.running_s else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the wall clock that the training loop waited for data."""
        return self.wait_s / self.running_s if self.running_s else 0.0

    @property
    def bytes_per_clip(self) -> float:
        """Bytes read per delivered clip."""
        return self.bytes_read / self.clips if self.clips else 0.0

    @property
    def decoded_per_delivered(self) -> float:
        """Frames decoded for every frame delivered: what the GOP structure and the stride cost."""
        return self.frames_decoded / self.frames_delivered if self.frames_delivered else 0.0

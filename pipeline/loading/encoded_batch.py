"""What every decoder takes, and what every decoder is."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from .frame_decoder import SliceTable
from .sampler import ClipRequests


@dataclass
class EncodedBatch:
    """What a decoder needs for n clips.

    Attributes:
        requests: the clips, n rows.
        encoded: n arrays uint8, an MP4 each.
        frames: int64 (n, T), the frame of ``encoded`` that each clip frame is; ascending but for looped videos.
        attempts: int64 (n,), how many clips were bad before at the same position.
        bytes_read: int64 (n,), bytes that were read for each clip.
        tables: n tables of the slices; empty where only whole files are known, which DALI alone decodes.
    """

    requests: ClipRequests
    encoded: list[np.ndarray]
    frames: np.ndarray
    attempts: np.ndarray
    bytes_read: np.ndarray
    tables: list[SliceTable] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.encoded)

    def take(self, rows: list[int]) -> "EncodedBatch":
        """Some rows of the batch."""
        encoded, tables = [self.encoded[row] for row in rows], [self.tables[row] for row in rows if self.tables]
        frames, attempts, read = self.frames[rows], self.attempts[rows], self.bytes_read[rows]
        return EncodedBatch(self.requests.take(rows), encoded, frames, attempts, read, tables)

    @classmethod
    def join(cls, parts: "list[EncodedBatch]") -> "EncodedBatch":
        """All rows of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            ClipRequests.join([part.requests for part in parts]),
            [data for part in parts for data in part.encoded],
            np.concatenate([part.frames for part in parts]),
            np.concatenate([part.attempts for part in parts]),
            np.concatenate([part.bytes_read for part in parts]),
            [table for part in parts for table in part.tables],
        )


class Decoder(Protocol):
    """A queue of batches: ``submit`` them, ``collect`` the clips in the same order."""

    def submit(self, batch: EncodedBatch) -> None:
        """Queue a batch; at most ``depth`` may be queued at a time."""
        ...

    def collect(self, stream: "torch.cuda.Stream | None" = None) -> torch.Tensor:
        """The clips of the oldest batch.

        Args:
            stream: on a GPU, the stream on which the result is ready and on which its memory is released.

        Returns:
            uint8 (n, T, size, size, 3) on the device.

        Raises:
            RuntimeError: a clip of this batch cannot be decoded; later batches are not affected.
        """
        ...

    def close(self) -> None:
        """Stop what runs."""
        ...

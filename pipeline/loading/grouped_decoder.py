"""DALI's decoder for a GPU: several clips a file (``clip_groups.py``), cut and resized by PyTorch.

batch of n clips -> G files -> DALI: frames, uint8 (F, h, w, 3) a file -> two matrix products -> n clips
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from .clip_groups import ClipGroup, group_clips
from .decode import ClipDecoder, check_pictures
from .encoded_batch import EncodedBatch
from .resize import matrix, resized, taps


class _Fed(NamedTuple):
    """What is kept of a batch: its groups; and in their order of rows float64 (n, 2, 2), start and end, y and x, of the
    regions, and the size of the pictures as the index says it."""

    groups: list[ClipGroup]
    region: np.ndarray
    expected: np.ndarray | None


class GroupedClipDecoder(ClipDecoder):
    """``ClipDecoder`` that decodes several clips as one file.

    Pixels are within one level of those of ``ClipDecoder``, and do not depend on what a clip is decoded with.
    """

    def collect(self, stream: "torch.cuda.Stream | None" = None) -> torch.Tensor:
        """See ``ClipDecoder``; the clips are PyTorch's memory."""
        with torch.cuda.stream(stream):  # does nothing for None
            return super().collect(stream)

    def _graph(self) -> tuple[Any, ...]:
        return self._video([])

    def _arrays(self, batch: EncodedBatch) -> tuple[tuple, Any]:
        groups = group_clips(batch, self._threads)
        rows = [row for group in groups for row in group.rows]
        r = batch.requests.take(rows)
        region = np.stack([r.top, r.left, r.top + r.height, r.left + r.width], axis=1).reshape(-1, 2, 2)
        files = [group.encoded for group in groups], [group.frames for group in groups]
        return files, _Fed(groups, region, self._expected(r.sample))

    def _clips(self, outputs: tuple, fed: Any) -> torch.Tensor:
        assert isinstance(fed, _Fed)
        videos = [torch.from_dlpack(outputs[0][row]) for row in range(len(fed.groups))]
        counts = [len(group.rows) for group in fed.groups]
        picture = np.repeat([video.shape[1:3] for video in videos], counts, axis=0)
        check_pictures(picture, fed.expected)
        _check_frames(videos, fed.groups)
        return self._resized(videos, fed, picture)

    def _resized(self, videos: list[torch.Tensor], fed: _Fed, picture: np.ndarray) -> torch.Tensor:
        (top, left), (bottom, right) = fed.region[:, 0].T, fed.region[:, 1].T
        numbers = [
            *taps(top, bottom, picture[:, 0], self._size),
            *taps(left, right, picture[:, 1], self._size),
            *(part for group in fed.groups for part in (np.array(group.rows), group.places, _clip_of_frame(group))),
        ]
        rows_at, rows_weight, columns_at, columns_weight, *rest = self._upload(numbers)
        n, frames = len(picture), fed.groups[0].places.shape[1]
        clips = torch.empty(n, frames, self._size, self._size, 3, dtype=torch.uint8, device=self.device)
        first = 0
        for group, video in zip(fed.groups, videos, strict=True):
            row, places, clip = rest[:3]
            del rest[:3]
            part = slice(first, first + len(group.rows))
            first = part.stop
            rows = matrix(rows_at[part], rows_weight[part], video.shape[1])
            columns = matrix(columns_at[part], columns_weight[part], video.shape[2])
            clips[row] = resized(video, clip, rows, columns)[places]
        return clips

    def _upload(self, arrays: list[np.ndarray]) -> list[torch.Tensor]:
        """Arrays of int64 to the device in one copy."""
        flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
        if self.device.type == "cuda":
            flat = flat.pin_memory().to(self.device, non_blocking=True)
        parts = flat.split([array.size for array in arrays])
        return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def _clip_of_frame(group: ClipGroup) -> np.ndarray:
    """int64 (F,): which clip of the group each frame belongs to; those of none, for the check, to the first."""
    clip = np.zeros(len(group.frames), np.int64)
    clip[group.places] = np.arange(len(group.rows))[:, None]
    return clip


def _check_frames(videos: list[torch.Tensor], groups: list[ClipGroup]) -> None:
    """RuntimeError where the decoder lost a frame, see ``clip_groups``; waits for the device."""
    pairs = [video for video, group in zip(videos, groups, strict=True) if group.checked]
    if pairs and bool(torch.stack([(video[0] != video[-1]).any() for video in pairs]).any()):
        raise RuntimeError("the decoder delivers fewer frames than its file has")

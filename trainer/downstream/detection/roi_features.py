"""Features of boxes: a layer's map of a clip, averaged over time, cut out where the box is.

A clip lies around each key frame, the middle of it, and shows the complete picture, squeezed to a square: boxes at the
border count like others. Key frames are every n-th frame of the video, and the middle of a tube that has none of these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from ....pipeline.errors import InputError
from ....pipeline.loading.frame_walk import BadVideo, FrameWalk, Part
from ....pipeline.loading.sampler import ClipConfig
from ....pipeline.progress import Progress
from ...diagnostics.feature_maps import last_map, places
from ...inference.classifier import Classifier
from ..features.windows import windows
from .tubes import Tube

_BINS = 7  # along each side of a box, as common detection heads have; their mean is taken


@dataclass(frozen=True)
class TubeFeatures:
    """Of one tube.

    Attributes:
        rows: int64 (K,), places in the tube of its key frames, ascending.
        values: float32 (K,D).
    """

    rows: np.ndarray
    values: np.ndarray


def key_rows(tube: Tube, every: int) -> np.ndarray:
    """int64 (K,), at least one: places in the tube of the frames that ``every`` divides, or of its middle."""
    found = np.flatnonzero(tube.frames % every == 0)
    return found if len(found) else np.array([len(tube) // 2])


def clip_around(frame: int, clip: ClipConfig, total: int) -> np.ndarray:
    """int64 (T,): frames of the clip with ``frame`` in its middle; at the ends of the video its frame there repeats."""
    return np.clip(frame + clip.stride * (np.arange(clip.frames) - clip.frames // 2), 0, total - 1)


def tube_features(
    walk: FrameWalk,
    tubes: Mapping[int, Sequence[Tube]],
    classifier: Classifier,
    clip: ClipConfig,
    *,
    layer: str,
    every: int,
    batch_size: int,
    device: torch.device,
) -> tuple[dict[int, list[TubeFeatures]], list[str]]:
    """Features of tubes, each video decoded once.

    Args:
        walk: of the dataset.
        tubes: row of the index -> its tubes, boxes in shares of the picture, within the video.
        classifier: the network, on ``device``.
        clip: shape of the clips that it takes.
        layer, every, batch_size: see ``DetectConfig``.

    Returns:
        Row -> features in the order of its tubes; and the damaged videos, which have none, with the reason.

    Raises:
        InputError: the layer is unknown, or has no places.
    """
    index = walk.index
    keys = {row: key_boxes(own, every) for row, own in tubes.items()}
    clips = {
        row: np.stack([clip_around(frame, clip, int(index.frames[row])) for frame in of_video])
        for row, of_video in keys.items()
    }
    found, bad = {}, []

    def picture(row: int) -> list[tuple[int, int, int, int]]:
        return [(0, 0, int(index.height[row]), int(index.width[row]))]

    with Progress("features of boxes", len(tubes), "videos") as progress:
        for video in walk.videos(tubes, lambda row: np.unique(clips[row]), picture):
            row, values = video.sample, []
            boxes = [np.stack([tubes[row][tube].boxes[at] for tube, at in owners]) for owners in keys[row].values()]
            try:
                for first, pixels in _batches(video.parts, clips[row], classifier, batch_size, device):
                    layer = last_map(classifier.model, pixels).name if layer == "last" else layer
                    maps = places(classifier.model, pixels, layer)
                    if maps.ndim != 5:
                        raise InputError(f"layer {layer!r}: its places are not known in height and width; name another")
                    values.append(box_features(maps, boxes[first : first + len(pixels)]).cpu())
            except BadVideo as error:
                bad.append(f"{index.key(row)} ({error})")
            else:
                found[row] = _by_tube(len(tubes[row]), keys[row], torch.cat(values).numpy())
            progress.advance(1)
    return found, bad


def key_boxes(tubes: Sequence[Tube], every: int) -> dict[int, list[tuple[int, int]]]:
    """Key frame -> the tubes that have it as one, by number, each with the box's place in it; ascending."""
    found: dict[int, list[tuple[int, int]]] = {}
    for number, tube in enumerate(tubes):
        for row in key_rows(tube, every).tolist():
            found.setdefault(int(tube.frames[row]), []).append((number, row))
    return dict(sorted(found.items()))


def _batches(
    parts: Iterator[Part], clips: np.ndarray, classifier: Classifier, batch_size: int, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Number of the first clip, and float32 (B,3,T,h,w) of up to ``batch_size`` of them, normalised."""
    batch: list[np.ndarray] = []
    for number, (frames, rows) in enumerate(windows(parts, clips), 1):
        batch.append(frames[rows, 0])
        if len(batch) == batch_size or number == len(clips):
            pixels = torch.from_numpy(np.stack(batch)).to(device).permute(0, 4, 1, 2, 3).float()
            yield number - len(batch), pixels * classifier.scale + classifier.shift
            batch = []


def box_features(maps: Tensor, boxes: Sequence[np.ndarray]) -> Tensor:
    """float32 (N,D): maps averaged over time and over the places of each box.

    Args:
        maps: (B,D,t,h,w).
        boxes: B arrays (n,4), in shares of the picture, N in all.
    """
    flat = maps.mean(2)
    size = torch.tensor([flat.shape[3], flat.shape[2]] * 2, dtype=flat.dtype, device=flat.device)
    regions = [torch.from_numpy(box).to(flat) * size for box in boxes]
    return roi_align(flat, regions, _BINS, sampling_ratio=2, aligned=True).mean((2, 3))


def _by_tube(tubes: int, keys: Mapping[int, list[tuple[int, int]]], values: np.ndarray) -> list[TubeFeatures]:
    """Features in the order of ``keys``, dealt out to the tubes."""
    rows: list[list[int]] = [[] for _ in range(tubes)]
    own: list[list[np.ndarray]] = [[] for _ in range(tubes)]
    owners = [owner for of_frame in keys.values() for owner in of_frame]
    for (tube, row), value in zip(owners, values, strict=True):
        rows[tube].append(row)
        own[tube].append(value)
    return [TubeFeatures(np.array(row, np.int64), np.stack(value)) for row, value in zip(rows, own, strict=True)]

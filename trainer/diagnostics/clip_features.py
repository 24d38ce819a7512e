"""Features of every video of a dataset, for several models, layers and kinds of clips; each video is decoded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...kernels import clip_prep
from ...pipeline.errors import InputError
from ...pipeline.loading.cpu_threads import leave_a_core_for_decoding
from ...pipeline.loading.device import resolve_device
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.progress import Progress
from ..evaluation.config import EvaluateOptions
from ..evaluation.derived_clips import ClipTransform
from ..evaluation.subject import Subject
from .feature_maps import pooled, stages


@dataclass(frozen=True)
class ClipFeatures:
    """What one model makes of a dataset.

    Attributes:
        keys: N names.
        labels: int64 (N,), positions in ``classes``.
        classes: class names of the dataset.
        values: (kind of clips, layer) -> float32 (N,D), averaged over time, space and views.
    """

    keys: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    values: Mapping[tuple[str, str], np.ndarray]

    def rows_of(self, keys: Sequence[str], of: Path) -> np.ndarray:
        """int64 (M,): the rows of some keys.

        Raises:
            InputError: a key is not there.
        """
        row = {key: n for n, key in enumerate(self.keys)}
        missing = next((key for key in keys if key not in row), None)
        if missing is not None:
            raise InputError(f"{of}: key {missing!r} is missing; both datasets must hold the same keys")
        return np.array([row[key] for key in keys], np.int64)


def clip_features(
    subjects: Sequence[Subject],
    dataset: Path,
    transforms: Mapping[str, ClipTransform],
    options: EvaluateOptions,
    layers: Sequence[str] = (),
) -> dict[str, ClipFeatures]:
    """Run models over a dataset and keep their layers' mean outputs.

    Args:
        subjects: models that take clips of one shape, with different names.
        dataset: folder made by ``unstill convert``.
        transforms: kind of clips -> how they are made from the dataset's.
        options: views, batch size, device.
        layers: see ``feature_maps.pooled``; by default each model's ``stages``.

    Returns:
        Name of the model -> its features, in the dataset's order.

    Raises:
        InputError: the models take different clips or have one name, a layer is unknown, or a video does not decode.
    """
    check_subjects(subjects)
    clip, device = subjects[0].clip, resolve_device(options.device)
    views = options.views.temporal * options.views.spatial
    with (
        ClipLoader(
            dataset,
            clip=clip,
            batch_size=options.batch_size,
            views=options.views,
            device=device,
            seed=options.seed,
            config=options.loader,
        ) as loader,
        torch.inference_mode(),
        leave_a_core_for_decoding(device),
        Progress("features", len(loader.index) * views, "clips") as progress,
    ):
        index = loader.index
        sums: dict[tuple[str, str, str], np.ndarray] = {}
        of: dict[str, Sequence[str]] = {}
        seen = np.zeros(len(index), np.int64)
        for clips in loader:
            rows = clips.sample.cpu().numpy()
            keys = [index.key(row) for row in rows.tolist()]
            for kind, transform in transforms.items():
                frames = transform(clips.frames, keys).contiguous()
                for subject in subjects:
                    pixels = clip_prep(frames, mean=subject.mean, std=subject.std)[0]
                    model = subject.model.to(device)
                    if subject.name not in of:
                        of[subject.name] = layers or stages(model, pixels)
                    for layer, value in pooled(model, pixels, of[subject.name]).items():
                        found = value.cpu().numpy()
                        place = (subject.name, kind, layer)
                        total = sums.setdefault(place, np.zeros((len(index), found.shape[1]), np.float64))
                        np.add.at(total, rows, found)
            np.add.at(seen, rows, 1)
            progress.advance(len(rows))
    if (seen != views).any():
        lost = index.key(int(np.flatnonzero(seen != views)[0]))
        raise InputError(
            f"{dataset}: {(seen != views).sum()} videos could not be decoded, first {lost}; repair or drop them"
        )
    keys, labels, classes = tuple(index.keys()), np.asarray(index.label, np.int64), tuple(index.classes)
    return {
        subject.name: ClipFeatures(
            keys,
            labels,
            classes,
            {
                (kind, layer): (total / views).astype(np.float32)
                for (s, kind, layer), total in sums.items()
                if s == subject.name
            },
        )
        for subject in subjects
    }


def check_subjects(subjects: Sequence[Subject]) -> None:
    """Refuse models of one name, or that take clips of different shapes."""
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise InputError(f"models {', '.join(names)}: two have one name; give folders with different names")
    if any(subject.clip != subjects[0].clip for subject in subjects):
        raise InputError("the models take clips of different shapes; diagnose them one by one")

"""Which scene each video shows: labels by key, mostly the soft output of a scene classifier (Places365).

*.npz   arrays keys (N,) text and probabilities (N,K), rows of distributions
*.csv   columns key and scene, a name: each becomes a distribution with one entry; K is the number of names
"""

import csv
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.errors import InputError
from ...pipeline.shards.index import SampleIndex


def scene_table(path: Path, data: Path) -> Tensor:
    """The distribution over scenes of every sample of a dataset, float32 (N,K), in its order.

    Args:
        path: .npz or .csv, see above; keys that the dataset does not have are not read.
        data: dataset folder made by ``unstill convert``.

    Raises:
        InputError: the file is not readable, a sample is missing in it, or a row is no distribution.
    """
    by_key, probabilities = _read(path)
    keys = SampleIndex.load(data).keys()
    missing = next((key for key in keys if key not in by_key), None)
    if missing is not None:
        raise InputError(f"{path}: no scene for {missing!r}; every video of {data} must be there")
    table = probabilities[[by_key[key] for key in keys]]
    wrong = np.flatnonzero(~(np.isfinite(table).all(1) & (table >= 0).all(1) & (abs(table.sum(1) - 1) < 1e-2)))
    if len(wrong):
        raise InputError(f"{path}: the row of {keys[wrong[0]]!r} is no distribution; expected shares that sum to 1")
    return torch.from_numpy(table / table.sum(1, keepdims=True))


def soft_cross_entropy(logits: Tensor, distribution: Tensor) -> Tensor:
    """Mean of -sum_k q_k log p_k over rows, (B,K) each."""
    return -(distribution.to(logits.dtype) * F.log_softmax(logits, 1)).sum(1).mean()


def scene_head(width: int, scenes: int, hidden: int, layers: int) -> nn.Sequential:
    """``layers`` x [linear - batch norm - ReLU], then linear: (B,width) -> logits (B,scenes)."""
    blocks: list[nn.Module] = []
    for _ in range(layers):
        blocks += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*blocks, nn.Linear(width, scenes))


def _read(path: Path) -> tuple[dict[str, int], np.ndarray]:
    try:
        if path.suffix == ".csv":
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
            keys, scenes = [row["key"] for row in rows], [row["scene"] for row in rows]
            position = {scene: n for n, scene in enumerate(sorted(set(scenes)))}
            probabilities = np.eye(len(position), dtype=np.float32)[[position[scene] for scene in scenes]]
        else:
            with np.load(path) as file:
                keys, probabilities = file["keys"].tolist(), np.asarray(file["probabilities"], np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: cannot read scenes from it ({error}); expected a .npz with keys and probabilities, or a .csv "
            "with the columns key and scene"
        ) from None
    if probabilities.ndim != 2 or len(probabilities) != len(keys) or len(set(keys)) < len(keys):
        raise InputError(
            f"{path}: {len(keys)} keys and probabilities {probabilities.shape}; expected different keys, a row each"
        )
    return {key: n for n, key in enumerate(keys)}, probabilities

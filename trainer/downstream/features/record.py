"""``features.json``: how a folder of features was made, under the names that localisation code asks for.

``window`` and ``stride`` are once more ``num_frames`` and ``feat_stride``, as ActionFormer and TriDet call them;
OpenTAD's ``snippet_stride`` is the stride, its ``offset_frames`` half the window.
"""

import json
from collections.abc import Sequence

import numpy as np
from torch import nn

from ....pipeline.atomic_files import write_atomic
from ....pipeline.bounded_files import read_bounded
from ....pipeline.errors import InputError
from ....pipeline.shards.index import SampleIndex
from ...inference.classifier import Facts
from ..encoder import weights_digest
from ..feature_folder import RECORD
from .config import FeaturesConfig

_OPTIONS = ("crops", "crop_share", "layer", "pool", "layout", "dtype", "batch_size")


def write_record(
    config: FeaturesConfig, index: SampleIndex, names: Sequence[str], model: nn.Module, facts: Facts, shown: int
) -> None:
    """Write features.json, or see that the one that is there says the same.

    Args:
        config, index: how, and of which videos.
        names: of their files, in the index's order.
        model, facts: the network.
        shown: frames of a window that the network sees.

    Raises:
        InputError: OUT holds features of other options, another model or another dataset.
    """
    rates = set(np.asarray(index.fps_milli).tolist())
    record = {
        "format": 1,
        "window": config.window,
        "stride": config.stride,
        "feat_stride": config.stride,
        "num_frames": config.window,
        "default_fps": rates.pop() / 1000 if len(rates) == 1 else None,
        "options": {name: getattr(config, name) for name in _OPTIONS},
        "frames_shown": shown,
        "network": facts.model,
        "size": facts.clip.size,
        "mean": facts.mean,
        "std": facts.std,
        "weights_sha256": weights_digest(model),
        "videos": {
            name: {"frames": frames, "fps": fps / 1000}
            for name, frames, fps in zip(names, index.frames.tolist(), index.fps_milli.tolist(), strict=True)
        },
    }
    text = (json.dumps(record, indent=1) + "\n").encode()
    path = config.out / RECORD
    others = any(config.out.glob("*.npy"))  # before the record: another process may write both meanwhile
    if path.exists():
        if read_bounded(path, 1 << 30) != text:
            raise InputError(f"{path}: of other options, another model or dataset; choose a new OUT, or remove it")
    elif others:
        raise InputError(f"{config.out}: has .npy files without {RECORD}; choose a new OUT, or remove them")
    else:
        write_atomic(path, text)

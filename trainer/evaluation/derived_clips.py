"""Test clips made from other clips, in memory: SCUFO and the controls for a motion gate.

Every choice is a hash of (seed, key), so a clip is the same in every run, batch and order, and a SCUFO frame belongs to
its SCUBA video for good. All functions map uint8 clips (B,T,H,W,3), their B keys and a seed to uint8 clips of the same
shape. ``measures.CLIP_SETS`` says which datasets they are made from.

| set | clip | a high accuracy shows |
|---|---|---|
| still | one frame, repeated | that a picture was enough; SCUFO when made from SCUBA (lower is better) |
| shaken | the still frame, jumping about | a motion gate: what moves *somehow* is named by its appearance |
| backwards | last frame first | see ``protocols.reversed_keep_flip`` |
| shuffled | frames in random order | likewise: order did not matter |

Shaken and shuffled are one-sided: a high value shows a gate, a low value proves nothing.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from ...pipeline.loading.counter_random import fold, uniform_columns

SHAKE = 8  # the shaken frame jumps by up to 1/8 of each side, either way

# uint8 clips (B,T,H,W,3) and their B keys -> clips of the same shape; the seed is already chosen
ClipTransform = Callable[[Tensor, Sequence[str]], Tensor]

_STILL, _SHAKE, _SHUFFLE = 1, 2, 3  # what a hash is for, so that two uses never share bits


def as_filmed(frames: Tensor, keys: Sequence[str], seed: int = 0) -> Tensor:
    """The clips themselves."""
    return frames


def still_frame(keys: Sequence[str], frames: int, seed: int = 0) -> np.ndarray:
    """int64 (B,): which of a clip's ``frames`` its still version repeats, uniform over keys."""
    return (key_uniform(keys, _STILL, 1, seed)[:, 0] * frames).astype(np.int64)


def still(frames: Tensor, keys: Sequence[str], seed: int = 0) -> Tensor:
    """One frame of each clip, repeated: nothing moves, and the codec's noise does not flicker."""
    return _picked(frames, keys, seed)[:, None].expand_as(frames)


def shaken(frames: Tensor, keys: Sequence[str], seed: int = 0) -> Tensor:
    """The still frame, rolled around the borders by a random offset in every frame.

    Offsets are independent and uniform over the whole numbers in [-h // 8, h // 8] down and [-w // 8, w // 8] right.
    """
    t, h, w = frames.shape[1:4]
    u = key_uniform(keys, _SHAKE, 2 * t, seed).reshape(len(keys), 2, t)
    down, right = (
        np.floor(u[:, i] * (2 * (n // SHAKE) + 1)).astype(np.int64) - n // SHAKE for i, n in ((0, h), (1, w))
    )
    device, clip = frames.device, torch.arange(len(keys), device=frames.device)[:, None, None, None]
    rows = (torch.arange(h, device=device) - torch.from_numpy(down).to(device)[..., None]) % h
    columns = (torch.arange(w, device=device) - torch.from_numpy(right).to(device)[..., None]) % w
    return _picked(frames, keys, seed)[clip, rows[:, :, :, None], columns[:, :, None, :]]


def backwards(frames: Tensor, keys: Sequence[str], seed: int = 0) -> Tensor:
    """Time reversed."""
    return frames.flip(1)


def shuffled(frames: Tensor, keys: Sequence[str], seed: int = 0) -> Tensor:
    """Frames in an order that is uniform over all orders."""
    order = key_uniform(keys, _SHUFFLE, frames.shape[1], seed).argsort(1)
    clip = torch.arange(len(keys), device=frames.device)[:, None]
    return frames[clip, torch.from_numpy(order).to(frames.device)]


def _picked(frames: Tensor, keys: Sequence[str], seed: int) -> Tensor:
    """(B,H,W,3): the still frame of each clip."""
    index = torch.from_numpy(still_frame(keys, frames.shape[1], seed)).to(frames.device)
    return frames[torch.arange(len(keys), device=frames.device), index]


def key_uniform(keys: Sequence[str], purpose: int, columns: int, seed: int) -> np.ndarray:
    """float64 (B, columns) in [0, 1), a function of each key, the purpose (one number for each use) and the seed."""
    digests = b"".join(blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return uniform_columns(fold(seed, purpose, np.frombuffer(digests, "<i8")), columns)

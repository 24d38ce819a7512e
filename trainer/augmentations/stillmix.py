"""StillMix (arXiv 2211.12883): a still picture, likely to mislead, is blended into all frames; the label stays.

The stills come from a bank (`still_bank.py`), the frames that a picture classifier is surest about. Without a bank each
is a random frame of another clip of the batch, the paper's variant without a reference network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from safetensors import SafetensorError

from ...pipeline.errors import InputError
from ...pipeline.options import check_options, more_than
from ..batch import PEOPLE, Batch, chosen_rows, mix, people_of_both, repeat_frame, share_where, to_device, upload
from .base import BatchAugmentation, Context

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StillMix(BatchAugmentation):
    """Blend a still picture into all frames of each clip."""

    title: ClassVar[str] = "StillMix"

    a: float = 200.0
    """The clip's share is drawn from Beta(a, b): with 200 and 200 about one half."""
    b: float = 200.0
    """See `a`."""
    bank: Path | None = None
    """File of stills made by `unstill still-bank`; none: random frames of other clips of the batch."""

    def __post_init__(self):
        super().__post_init__()
        check_options(self, "augmentation.", a=more_than(0), b=more_than(0))

    def read_files(self, size: int) -> None:
        """The bank's stills."""
        if self.bank is not None:
            read_bank(self.bank, (size, size))

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``; labels stay."""

        motion = batch.motion
        n, device = len(batch), motion.device
        chosen = chosen_rows(n, self.prob, rng)
        share = share_where(n, chosen, rng.beta(self.a, self.b), device)
        people = batch.per_sample.get(PEOPLE)
        if self.bank is None:
            other = (np.arange(n) + rng.integers(1, n, size=n)) % n if n > 1 else np.zeros(n, np.int64)
            # one frame of each clip, which everyone who picks the clip shares, as in the released code
            frame = to_device(rng.integers(motion.shape[2], size=n)[other], device)
            other = to_device(other, device)
            mixed = context.run(mix_frame_in, motion, other, frame, share)
            people = people_of_both(batch, None if people is None else people[other], frame, share)
        elif people is not None:
            raise InputError("augmentation StillMix: where people are in a bank's stills is not known; give no bank")
        else:
            bank = read_bank(self.bank, tuple(motion.shape[3:]))
            picked = upload(bank[rng.integers(len(bank), size=n)], device)
            mean, std = context.normalisation(device)
            stills = (picked[:, :, None].float() / 255 - mean) / std
            mixed = context.run(mix, motion, stills, share)
        return batch.blended(mixed, people=people, static_from=self.static_from)


def mix_frame_in(motion: Tensor, other: Tensor, frame: Tensor, share: Tensor) -> Tensor:
    """share * clip + (1 - share) * one frame of another clip.

    Args:
        motion: (B,3,T,h,w).
        other: int64 (B,), the other clip.
        frame: int64 (B,), which of its frames.
        share: (B,), of the own clip.
    """
    return mix(motion, repeat_frame(motion[other], frame), share)


@lru_cache(maxsize=2)
def read_bank(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The stills of a bank, uint8 (N,3,h,w), resized to ``size`` (h,w) where they differ.

    Raises:
        InputError: no such file, or not a bank.
    """
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    try:
        stills = load_file(path)["stills"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{path}: cannot read stills from it ({error}); make one with `unstill still-bank`, or give no bank"
        ) from None
    if stills.dtype != torch.uint8 or stills.ndim != 4 or stills.shape[1] != 3 or not len(stills):
        raise InputError(
            f"{path}: stills are {stills.dtype} {tuple(stills.shape)}; expected uint8 (N, 3, height, width)"
        )
    if tuple(stills.shape[2:]) != size:
        stills = F.interpolate(stills.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
    return stills.numpy()

"""Frames of a batch -> normalised motion and static clips."""

from typing import Any

import torch
from torch import Tensor

from ...kernels import clip_prep
from ...pipeline.errors import InputError
from ...pipeline.loading.clips import Clips
from ..config import TrainConfig
from .people import PeopleMasks


def clip_options(config: TrainConfig) -> dict[str, Any]:
    """How the run's clips are made: options of ``kernels.clip_prep``."""
    return {
        "mean": config.inputs.mean,
        "std": config.inputs.std,
        # what autocast would cast them to: the kernel rounds once, so losses and gradients are equal to the bit
        "dtype": {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[config.step.precision],
        "layout": "channels_last_3d" if config.step.channels_last else "ncdhw",
        "static": "none" if config.method.static == "none" else "frame",  # repeated in the step, see ``passes``
    }


class Prepare:
    """uint8 frames -> normalised motion clip and static clip; the loader runs it ahead, on its own stream.

    Args:
        config: ``inputs``, ``step``, ``method`` and ``augmentation`` are read.

    Raises:
        InputError: the method or the augmentation needs to know where people are, and no file of boxes is given.
    """

    def __init__(self, config: TrainConfig):
        self._transform, self._options = config.inputs.transform, clip_options(config)
        self._people = None
        if config.method.needs_people or (config.augmentation is not None and config.augmentation.needs_people):
            if config.inputs.people is None:
                raise InputError("this method needs to know where people are; give a file of boxes: --people")
            self._people = PeopleMasks(config.inputs.people, config.data, config.clip, self._transform)

    def __call__(self, clips: Clips) -> tuple[Tensor, Tensor | None]:
        """(motion (B,3,T,h,w), the static clips' frame (B,3,1,h,w) or None)."""
        self.find_people(clips)
        return clip_prep(self.augmented(clips), flip=clips.flip, t_idx=clips.static_index, **self._options)

    def find_people(self, clips: Clips) -> None:
        """Put the masks of people into ``clips.per_sample``, where the run wants them."""
        if self._people is not None and "people" not in clips.per_sample:
            clips.per_sample["people"] = self._people(clips)

    def augmented(self, clips: Clips) -> Tensor:
        """The frames that the clips are made from, uint8 (B,T,H,W,3)."""
        return clips.frames if self._transform is None else self._transform(clips.frames, clips.draws)

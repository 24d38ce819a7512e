"""How decoded frames become what the network sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrameTransform(ABC):
    """A random change of decoded clips, before the static clip is taken; masks of people are changed alike.

    A subclass is a frozen dataclass. ``config.json`` names it as ``module:Class``.

    Attributes:
        fixed_frame_tells: what a frame at a known time gives away of the motion, in the videos that the transform is
            for; static clips must then repeat a random one. Empty: nothing.
    """

    fixed_frame_tells: ClassVar[str] = ""

    @abstractmethod
    def __call__(self, frames: Tensor, draws: Tensor) -> Tensor:
        """The changed clips.

        Args:
            frames: uint8 (B,T,H,W,C): frames with C = 3, or masks with C = 1.
            draws: float32 (B,K), uniform in [0,1): all randomness comes from here.

        Returns:
            uint8 (B,T,H,W,C), contiguous.
        """


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """How decoded frames become what the network sees."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per-channel mean of the normalisation, in units of the full range."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Per-channel standard deviation of the normalisation, in units of the full range."""
    people: Path | None = None
    """Boxes of people, for ActorCutMix and for SDN with `w_mask`: a .csv with the columns video (the sample's key),
    frame (from 0), left, top, right, bottom (shares of the picture, 0 to 1), or the same as .json."""
    transform: Annotated[FrameTransform | None, tyro.conf.Fixed, tyro.conf.Suppress] = None
    """A change of the frames that a recipe asks for; none by default."""

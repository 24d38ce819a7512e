"""Batch augmentations: they change the clips and labels of a batch, whatever the loss is, so any goes with any method.

An augmentation is a frozen dataclass with

    title                   what people call it
    mixes_labels            whether labels become distributions
    needs_people            whether it wants ``per_sample["people"]``, where people are in each clip
    second_share            weight of a second view of each clip in the loss; 0 where it makes none
    read_files(size)        what it reads from disk, before the first step
    __call__(batch, rng, context) -> Batch

Each sample is augmented with probability ``prob``; mixing ratios are drawn once a batch (as in the code of StillMix,
arXiv 2211.12883). All random numbers come from ``rng``, which the run seeds by (seed, step, rank): a resumed run draws
the same ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ...pipeline.options import between, check_options
from ..batch import Batch, upload
from .compiled import compiled

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Context:
    """What an augmentation must know of the run.

    Attributes:
        classes: number of classes.
        mean, std: the normalisation, in units of the pixels' range.
        compile: compile what is applied to every pixel.
        announce: log what is compiled.
    """

    classes: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    compile: bool = False
    announce: bool = False

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)``, compiled where the run compiles; see ``compiled``."""
        return (compiled(function, announce=self.announce) if self.compile else function)(*arguments)

    def normalisation(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation, float32 (3,1,1,1); copied without waiting for the device."""
        mean, std = upload(np.array([self.mean, self.std], np.float32).reshape(2, 3, 1, 1, 1), device)
        return mean, std


@dataclass(frozen=True, kw_only=True)
class BatchAugmentation(ABC):
    """What all batch augmentations share."""

    prob: float = 0.5
    """Probability that a sample is augmented. The papers tune it over 0.25, 0.5, 0.75 and 1."""
    static_from: Literal["original", "augmented"] = "original"
    """What static clips repeat, for methods that use them: a frame of the clip as it was (with its own label), as the
    official ALBAR code feeds them, or of the augmented clip (with its label)."""

    title: ClassVar[str]
    mixes_labels: ClassVar[bool] = False
    needs_people: ClassVar[bool] = False

    def __post_init__(self):
        check_options(self, "augmentation.", prob=between(0, 1, "a probability"))

    @property
    def second_share(self) -> float:
        """Weight of a second view of each clip in the loss; 0: none is made."""
        return 0.0

    def read_files(self, size: int) -> None:
        """Read the files that it needs, if any, so that the first step finds them in memory.

        Args:
            size: side of the clips, in pixels.

        Raises:
            InputError: a file cannot be read.
        """
        return

    @abstractmethod
    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """The augmented batch; nothing of ``batch`` is written to."""

"""RandAugment (arXiv 1909.13719) and random erasing (1708.04896), constant over a clip, then Mixup and CutMix.

timm's ``rand-m7-n4-mstd0.5-inc1`` with erasing 0.25, as VideoMAE and Video Swin's successors are fine-tuned: operators,
their strengths and rectangles are drawn for each clip, and are the same for all of its frames. Where the step is
compiled, so is all but the operators, see ``compiled``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...pipeline.errors import InputError
from ...pipeline.options import at_least, between, check_options
from ..batch import PEOPLE, Batch, memory_layout, to_device, upload
from . import picture_operators as pictures
from .base import BatchAugmentation, Context
from .mixup_cutmix import MixupCutmix

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Operator = Callable[["Tensor", "Tensor"], "Tensor"]

# operator, and its strength of a level 0..10 and a random sign
OPERATORS: tuple[tuple[Operator, Callable[[float, float], float]], ...] = (
    (pictures.autocontrast, lambda level, sign: 0.0),
    (pictures.equalize, lambda level, sign: 0.0),
    (pictures.invert, lambda level, sign: 0.0),
    (pictures.rotate, lambda level, sign: sign * 3 * level),
    (pictures.posterize, lambda level, sign: 4 - int(0.4 * level)),
    (pictures.solarize, lambda level, sign: 256 - int(25.6 * level)),
    (pictures.solarize_add, lambda level, sign: int(11 * level)),
    (pictures.saturation, lambda level, sign: max(0.1, 1 + sign * 0.09 * level)),
    (pictures.contrast, lambda level, sign: max(0.1, 1 + sign * 0.09 * level)),
    (pictures.brightness, lambda level, sign: max(0.1, 1 + sign * 0.09 * level)),
    (pictures.sharpness, lambda level, sign: max(0.1, 1 + sign * 0.09 * level)),
    (pictures.shear_x, lambda level, sign: sign * 0.03 * level),
    (pictures.shear_y, lambda level, sign: sign * 0.03 * level),
    (pictures.translate_x, lambda level, sign: sign * 0.045 * level),
    (pictures.translate_y, lambda level, sign: sign * 0.045 * level),
)


@dataclass(frozen=True, kw_only=True)
class RandAugment(BatchAugmentation):
    """Random picture operators on each clip, a rectangle of noise, then Mixup or CutMix."""

    title: ClassVar[str] = "RandAugment"

    prob: float = 0.5
    """Probability of each operator."""
    operators: int = 4
    """How many are drawn for each clip, one after another."""
    magnitude: float = 7.0
    """Their mean strength, 0 to 10."""
    spread: float = 0.5
    """Standard deviation of the strength."""
    erase: float = 0.25
    """Probability that a rectangle of a clip becomes noise."""
    then: MixupCutmix | None = None
    """How clips are mixed afterwards; by default not at all."""

    def __post_init__(self):
        super().__post_init__()
        check_options(
            self,
            "augmentation.",
            operators=at_least(0),
            magnitude=between(0, 10, "a strength"),
            erase=between(0, 1, "a probability"),
        )

    @property
    def mixes_labels(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  (a constant elsewhere)
        """Whether labels become distributions."""
        return self.then is not None

    def __call__(self, batch: Batch, rng: np.random.Generator, context: Context) -> Batch:
        """See ``BatchAugmentation``; labels change where ``then`` mixes."""
        if PEOPLE in batch.per_sample:
            raise InputError("augmentation RandAugment moves pixels, but not masks of people; choose another one")
        mean, std = context.normalisation(batch.motion.device)
        clips = self._operate(context.run(to_pixels, batch.motion, mean, std), rng)
        boxes, noise = self._rectangles(batch.motion, rng)
        motion = context.run(from_pixels, clips, mean, std, boxes, noise, memory_layout(batch.motion))
        batch = batch.blended(motion, static_from=self.static_from)
        return batch if self.then is None else self.then(batch, rng, context)

    def _operate(self, clips: Tensor, rng: np.random.Generator) -> Tensor:
        """Change clips, as ``to_pixels`` makes them, in place."""
        n, device = len(clips), clips.device
        for _ in range(self.operators):
            chosen = np.where(rng.random(n) < self.prob, rng.integers(len(OPERATORS), size=n), -1)
            levels = np.clip(rng.normal(self.magnitude, self.spread, n), 0, 10)
            signs = rng.choice([-1.0, 1.0], n)
            for number, (operator, strength) in enumerate(OPERATORS):
                rows = np.flatnonzero(chosen == number)
                if len(rows):  # known on the host, which so never waits
                    index = to_device(rows, device)
                    strengths = [strength(levels[row], signs[row]) for row in rows]
                    changed = operator(clips[index], upload(np.array(strengths, np.float32), device))
                    clips.index_copy_(0, index, changed)
        return clips

    def _rectangles(self, motion: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """What is erased: int64 (4,B), top, left, height and width in pixels, 0 for none; and noise like ``motion``."""
        import torch

        height, width = motion.shape[-2:]
        boxes = np.zeros((len(motion), 4), np.int64)
        for row in np.flatnonzero(rng.random(len(motion)) < self.erase):
            boxes[row] = draw_rectangle(height, width, rng)
        generator = torch.Generator(motion.device).manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(motion.shape, generator=generator, device=motion.device, dtype=motion.dtype)
        return to_device(boxes.T, motion.device), noise


def to_pixels(motion: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised clips (B,3,T,h,w) as float32 (B,T,3,h,w) of whole numbers 0..255."""
    return ((motion.float() * std + mean) * 255).round().clamp(0, 255).transpose(1, 2).contiguous()


def from_pixels(
    clips: Tensor, mean: Tensor, std: Tensor, boxes: Tensor, noise: Tensor, layout: torch.memory_format
) -> Tensor:
    """The other way, with rectangles of noise.

    Args:
        clips: see ``to_pixels``.
        mean, std: float32 (3,1,1,1).
        boxes: int64 (4,B), top, left, height and width of a rectangle of each clip.
        noise: (B,3,T,h,w), of the dtype that is returned.
        layout: of what is returned.
    """
    import torch

    motion = ((clips.transpose(1, 2) / 255 - mean) / std).to(noise.dtype)
    top, left, tall, wide = boxes.view(4, -1, 1, 1, 1, 1)
    y = torch.arange(motion.shape[-2], device=motion.device).view(-1, 1)
    x = torch.arange(motion.shape[-1], device=motion.device)
    inside = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
    return torch.where(inside, noise, motion).contiguous(memory_format=layout)


def draw_rectangle(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of 2 to 33 % of the picture, sides at most 3.3 to 1; all 0 where ten tries fail."""
    for _ in range(10):
        area = rng.uniform(0.02, 1 / 3) * height * width
        ratio = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        tall, wide = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < tall < height and 0 < wide < width:
            return int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1)), tall, wide
    return 0, 0, 0, 0

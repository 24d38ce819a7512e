"""Batch augmentations: each file says how the clips and labels of a batch change before the loss (see ``base``).

Any of them goes with any method: ALBAR + StillMix is ``method=Albar(...), augmentation=StillMix(...)``.
These files import torch inside functions, so that the command line can read their options without it.
"""

from .actor_cutmix import ActorCutMix
from .background_erasing import BackgroundErasing
from .fame import Fame
from .mixup import Mixup
from .mixup_cutmix import MixupCutmix
from .rand_augment import RandAugment
from .recast import Recast
from .stillmix import StillMix
from .videomix import VideoMix

Augmentation = Mixup | VideoMix | MixupCutmix | RandAugment | BackgroundErasing | ActorCutMix | Fame | StillMix | Recast

__all__ = [
    "ActorCutMix",
    "Augmentation",
    "BackgroundErasing",
    "Fame",
    "Mixup",
    "MixupCutmix",
    "RandAugment",
    "Recast",
    "StillMix",
    "VideoMix",
]

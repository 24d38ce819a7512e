"""Recipes on HMDB51."""

from dataclasses import replace

from ..augmentations import StillMix
from ..config import TrainConfig
from ..methods import Albar, Baseline
from .finetune import finetune, finetune_recast
from .places import OUT


def hmdb51_albar() -> TrainConfig:
    """ALBAR on HMDB51, the paper's settings."""
    return finetune("hmdb51_albar", Albar())


def hmdb51_baseline() -> TrainConfig:
    """Cross entropy on HMDB51, everything else as ``hmdb51_albar``."""
    return finetune("hmdb51_baseline", Baseline())


def hmdb51_stillmix() -> TrainConfig:
    """StillMix on HMDB51, everything else as ``hmdb51_albar``; give its bank with --augmentation.bank."""
    return replace(hmdb51_baseline(), out=OUT / "hmdb51_stillmix", augmentation=StillMix(prob=0.75))


def hmdb51_albar_stillmix() -> TrainConfig:
    """ALBAR with StillMix on HMDB51."""
    return replace(hmdb51_albar(), out=OUT / "hmdb51_albar_stillmix", augmentation=StillMix(prob=0.75))


def hmdb51_recast() -> TrainConfig:
    """Recast with ALBAR's static terms on HMDB51, everything else as ``hmdb51_albar``."""
    return finetune_recast("hmdb51_recast")


RECIPES = (
    hmdb51_albar,
    hmdb51_stillmix,
    hmdb51_albar_stillmix,
    hmdb51_recast,
    hmdb51_baseline,
)

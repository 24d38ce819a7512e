"""Recipes on UCF101."""

from ..config import TrainConfig
from ..methods import Albar, Baseline
from .finetune import finetune, finetune_recast


def ucf101_albar() -> TrainConfig:
    """ALBAR on UCF101 with HMDB51's weights: the paper's own for it are not in its code."""
    return finetune("ucf101_albar", Albar())


def ucf101_baseline() -> TrainConfig:
    """Cross entropy on UCF101, everything else as ``ucf101_albar``."""
    return finetune("ucf101_baseline", Baseline())


def ucf101_recast() -> TrainConfig:
    """Recast with ALBAR's static terms on UCF101, everything else as ``ucf101_albar``."""
    return finetune_recast("ucf101_recast")


RECIPES = (
    ucf101_albar,
    ucf101_recast,
    ucf101_baseline,
)

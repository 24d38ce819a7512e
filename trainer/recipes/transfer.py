"""Fine-tuning a trained encoder on another data set, as Choi et al. (SDN) do: give the run with --model.weights.

The settings are those of ``choi_r3d18``: 16 frames of 112, SGD, 100 epochs. For another network give --model.name and
its clip shape, too. `unstill transfer` measures linear probes, and the mean over splits (docs/downstream.md).
"""

from dataclasses import replace

from ..config import TrainConfig
from .choi import choi_r3d18
from .places import DATA, OUT


def ucf101_finetune() -> TrainConfig:
    """Fine-tuning on UCF101 by Choi et al.'s settings; the encoder: --model.weights RUN."""
    return _finetune("ucf101_finetune")


def hmdb51_finetune() -> TrainConfig:
    """Fine-tuning on HMDB51 by Choi et al.'s settings; the encoder: --model.weights RUN."""
    return _finetune("hmdb51_finetune")


def diving48_finetune() -> TrainConfig:
    """Fine-tuning on Diving48 by Choi et al.'s settings; the encoder: --model.weights RUN."""
    return _finetune("diving48_finetune")


def _finetune(name: str) -> TrainConfig:
    recipe = choi_r3d18()
    data = DATA / name.split("_")[0] / "train"
    return replace(recipe, data=data, out=OUT / name, model=replace(recipe.model, weights="none"))


RECIPES = (
    ucf101_finetune,
    hmdb51_finetune,
    diving48_finetune,
)

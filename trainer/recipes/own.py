"""Recipes for videos of your own: any folder of classes, on one card or without one.

The learning rate follows ``--batch-size`` (``optimisers.batch_rule``).
"""

from dataclasses import replace

from ...pipeline.loading.sampler import AugmentConfig, ClipConfig
from ..checkpoints.config import CheckpointConfig
from ..config import TrainConfig
from ..methods import Albar, Baseline, Method
from ..models.config import ModelConfig
from ..optimisers.config import OptimiserConfig
from ..optimisers.schedule import ScheduleConfig
from ..step_config import StepConfig
from .finetune import finetune
from .kinetics400 import KINETICS_INPUTS
from .places import DATA, OUT


def own_small() -> TrainConfig:
    """Your own videos with r3d_18 from Kinetics-400 weights, 16x2 frames of 112: for 8 GB, or a CPU."""
    return _small("own_small", Baseline())


def own_small_albar() -> TrainConfig:
    """ALBAR on your own videos, everything else as ``own_small``."""
    return _small("own_small_albar", Albar())


def own() -> TrainConfig:
    """Your own videos with swin3d_t from Kinetics-400 weights, 32x2 frames of 224: for 24 GB."""
    return _own("own", Baseline())


def own_albar() -> TrainConfig:
    """ALBAR on your own videos, everything else as ``own``."""
    return _own("own_albar", Albar())


def _small(name: str, method: Method) -> TrainConfig:
    return TrainConfig(
        data=DATA / "own" / "train",
        out=OUT / name,
        model=ModelConfig(name="r3d_18", weights="kinetics400"),
        method=method,
        clip=ClipConfig(frames=16, stride=2, size=112, short_video="halve_stride"),
        augment=AugmentConfig(static_frame="middle"),
        inputs=KINETICS_INPUTS,
        # a head that is new learns ten times as fast as what is pretrained
        optimiser=OptimiserConfig(
            name="adamw", lr=3e-5, lr_batch=8, weight_decay=0.05, head_lr=10.0, decay_norms=False
        ),
        schedule=ScheduleConfig(warmup=0.1, start=0.01),
        checkpoint=CheckpointConfig(every=100),
        epochs=20,
        batch_size=8,
    )


def _own(name: str, method: Method) -> TrainConfig:
    recipe = finetune(name, method)
    optimiser = replace(recipe.optimiser, lr_batch=8)
    return replace(recipe, data=DATA / "own" / "train", optimiser=optimiser, step=StepConfig(), batch_size=8, epochs=20)


RECIPES = (own_small, own_small_albar, own, own_albar)

"""Recipes of Choi et al. (SDN), on HMDB51 and the 200 classes of Mini-Kinetics."""

from dataclasses import replace

from ...pipeline.loading.sampler import AugmentConfig, ClipConfig
from ..config import TrainConfig
from ..methods import Baseline, Sdn
from ..models.config import ModelConfig
from ..optimisers.config import OptimiserConfig
from ..optimisers.schedule import ScheduleConfig
from ..step_config import StepConfig
from .kinetics400 import KINETICS_INPUTS
from .places import DATA, OUT


def choi_r3d18() -> TrainConfig:
    """The network and optimiser of Choi et al. (SDN), trained with cross entropy: its baseline row.

    16 frames of 112, SGD with momentum 0.9 and dampening 0.9, weight decay 1e-5, batch 32, from Kinetics-400 weights.
    """
    return TrainConfig(
        data=DATA / "hmdb51" / "train",
        out=OUT / "choi_r3d18",
        model=ModelConfig(name="r3d_18", weights="kinetics400"),
        method=Baseline(),
        clip=ClipConfig(frames=16, stride=1, size=112),
        augment=AugmentConfig(min_area=0.25),
        inputs=KINETICS_INPUTS,
        optimiser=OptimiserConfig(name="sgd", lr=0.005, lr_batch=32, weight_decay=1e-5, dampening=0.9),
        # the original lowers the rate on a plateau of the validation loss; fixed drops need no validation set
        schedule=ScheduleConfig(kind="step", warmup=0.0, milestones=(0.5, 0.75)),
        step=StepConfig(channels_last=True),
        epochs=100,
        batch_size=32,
    )


def choi_sdn_adversary() -> TrainConfig:
    """SDN of Choi et al., first stage: the scene adversary alone.

    For the first 5 of 100 epochs the new layers learn alone, at 100 times the rate; then all learn at one rate.
    """
    recipe = choi_r3d18()
    return replace(
        recipe,
        data=DATA / "kinetics200" / "train",
        out=OUT / "choi_sdn_adversary",
        method=Sdn(scenes=DATA / "kinetics200" / "scenes.npz", alpha=1.0),
        optimiser=replace(recipe.optimiser, lr=1e-4, head_lr=100.0, head_first=0.05),
    )


def choi_sdn() -> TrainConfig:
    """SDN, second stage: adversary and human-mask confusion, from where the first stage's run ended."""
    first = choi_sdn_adversary()
    return replace(
        first,
        out=OUT / "choi_sdn",
        model=replace(first.model, weights="none"),  # the first stage's
        method=replace(first.method, alpha=0.5, w_mask=1.0, first_stage=first.out),
        inputs=replace(first.inputs, people=DATA / "kinetics200" / "people.csv"),
        optimiser=replace(first.optimiser, head_lr=1.0, head_first=0.0),
    )


RECIPES = (
    choi_r3d18,
    choi_sdn_adversary,
    choi_sdn,
)

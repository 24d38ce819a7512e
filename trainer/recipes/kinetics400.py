"""Recipes on Kinetics-400."""

from ...pipeline.loading.sampler import AugmentConfig, ClipConfig
from ..config import TrainConfig
from ..inputs.config import InputConfig
from ..methods import Albar, Baseline
from ..models.config import ModelConfig
from ..optimisers.config import OptimiserConfig
from ..optimisers.schedule import ScheduleConfig
from ..step_config import StepConfig
from .finetune import finetune, finetune_recast
from .places import DATA, OUT

# of torchvision's Kinetics-400 weights for r3d_18, mc3_18, r2plus1d_18
KINETICS_INPUTS = InputConfig(mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))


def kinetics400_albar() -> TrainConfig:
    """ALBAR on Kinetics-400 from its own pretrained weights, with HMDB51's weights: the paper's are not in its code."""
    return finetune("kinetics400_albar", Albar())


def kinetics400_baseline() -> TrainConfig:
    """Cross entropy on Kinetics-400, everything else as ``kinetics400_albar``."""
    return finetune("kinetics400_baseline", Baseline())


def kinetics400_scratch() -> TrainConfig:
    """r3d_18 on Kinetics-400 from a random start: 16x2 frames of 112, SGD with cosine, batch 256."""
    return TrainConfig(
        data=DATA / "kinetics400" / "train",
        out=OUT / "kinetics400_scratch",
        model=ModelConfig(name="r3d_18"),
        method=Baseline(),
        clip=ClipConfig(frames=16, stride=2, size=112),
        augment=AugmentConfig(min_area=0.25),
        inputs=KINETICS_INPUTS,
        optimiser=OptimiserConfig(
            name="sgd", lr=0.16, lr_batch=256, weight_decay=1e-4, nesterov=True, decay_norms=False
        ),
        schedule=ScheduleConfig(warmup=0.1),
        step=StepConfig(channels_last=True),
        epochs=45,
        batch_size=256,
    )


def kinetics400_recast() -> TrainConfig:
    """Recast with ALBAR's static terms on Kinetics-400, everything else as ``kinetics400_albar``."""
    return finetune_recast("kinetics400_recast")


RECIPES = (
    kinetics400_albar,
    kinetics400_recast,
    kinetics400_baseline,
    kinetics400_scratch,
)

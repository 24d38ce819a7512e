"""The published fine-tunings: ALBAR's, shared by its three data sets, and StillMix's, for what ALBAR is compared with.

ALBAR's settings are those of the official ALBAR code (github.com/UCF-CRCV/ALBAR), with three of its defects
corrected, each of which changes numbers:

* its learning rate runs at 1 in epoch 1 before the warm-up starts, lags one epoch, and never reaches the cosine's end;
  ours warms up from the first step and ends at 0, per step, on every rank;
* a resumed run there repeats an epoch at the full learning rate; ours continues bit for bit;
* it selects the best epoch on the test set; ours keeps the last, or the best on a validation set that you name.

A fourth changes none: its entropy is NaN once a probability underflows, ours is taken of the log-softmax.
Kept, since the published weight 10 is calibrated to it: the penalty's norm per image column (``gp_norm``). Float32, as
there; ``bf16`` of a recipe is its twin under bf16 autocast, faster on GPUs, which no published number was made with.
"""

from dataclasses import replace

from ...pipeline.loading.sampler import AugmentConfig, ClipConfig
from ..augmentations import Augmentation, Recast
from ..config import TrainConfig
from ..methods import Albar, Baseline, Method
from ..models.config import ClipViewConfig, ModelConfig
from ..optimisers.config import OptimiserConfig
from ..optimisers.schedule import ScheduleConfig
from ..step_config import StepConfig
from .places import DATA, OUT


def finetune(name: str, method: Method) -> TrainConfig:
    """The recipe ``<data set>_<method>``."""
    return TrainConfig(
        data=DATA / name.split("_")[0] / "train",
        out=OUT / name,
        model=ModelConfig(name="swin3d_t", weights="kinetics400"),
        method=method,
        clip=ClipConfig(frames=32, stride=2, size=224, short_video="halve_stride"),
        augment=AugmentConfig(static_frame="middle"),
        optimiser=OptimiserConfig(name="adamw", lr=1e-5, lr_batch=6, weight_decay=0.05),
        schedule=ScheduleConfig(warmup=0.1, start=0.01),
        step=StepConfig(precision="fp32"),
        epochs=50,
        batch_size=6,
        seed=1,
    )


def stillmix_finetune(name: str, augmentation: Augmentation | None = None, method: Method | None = None) -> TrainConfig:
    """The recipe ``<data set>_<method>`` by the settings of StillMix's code for Kinetics-400 weights and HMDB51.

    AdamW at 3.75e-4 for the head and a tenth of it for the rest, no decay of norms and position biases, 30 epochs of
    which 2.5 are warm-up, 12 clips (there: a GPU), dropout of one half before the head; short videos are looped.
    """
    recipe = finetune(name, method or Baseline())
    return replace(
        recipe,
        model=replace(recipe.model, head_dropout=0.5),
        augmentation=augmentation,
        clip=replace(recipe.clip, short_video="loop"),
        optimiser=OptimiserConfig(
            name="adamw",
            lr=3.75e-5,
            lr_batch=12,
            head_lr=10.0,
            weight_decay=0.05,
            no_decay=("norm", "relative_position_bias_table"),
        ),
        schedule=ScheduleConfig(warmup_epochs=2.5),
        epochs=30,
        batch_size=12,
        seed=0,
    )


def stillmix_reference(name: str) -> TrainConfig:
    """The network of single frames whose most certain frames become StillMix's stills, by its code's settings.

    ResNet-50 from ImageNet weights, 50 epochs of SGD without momentum at 0.04, a tenth of it from epoch 20 and again
    from epoch 40, 256 frames a step.
    """
    recipe = finetune(name, Baseline())
    return replace(
        recipe,
        model=ModelConfig(name="unstill.trainer.models.frame_net:resnet50"),
        clip=ClipConfig(frames=1, stride=1, size=224),
        # there: squeezed to 256 x 256 and cut to 224 at random
        augment=AugmentConfig(min_area=0.7),
        optimiser=OptimiserConfig(name="sgd", lr=0.04, lr_batch=256, weight_decay=1e-5, momentum=0.0),
        schedule=ScheduleConfig(kind="step", warmup=0.0, milestones=(0.4, 0.8)),
        epochs=50,
        batch_size=256,
        seed=0,
    )


def bf16(recipe: TrainConfig) -> TrainConfig:
    """The same recipe under bf16 autocast, called ``<name>_bf16``."""
    return replace(recipe, out=OUT / f"{recipe.out.name}_bf16", step=replace(recipe.step, precision="bf16"))


def finetune_recast(name: str) -> TrainConfig:
    """The recipe ``<data set>_recast``: ALBAR's, with Recast before another background, and what stays fading in.

    A pretrained network knows ordinary clips, so it starts on less of the moving part alone than one from random
    weights: what stays comes back between 20 and 60 % of the run. The camera's motion is taken out of each clip.
    Without the penalty: it is taken on static clips, of which the network sees nothing at first. Not yet trained on
    real videos; the settings are those of the procedural dataset where that could choose them.
    """
    recipe = finetune(name, Albar(w_gp=0.0))
    view = ClipViewConfig(sees="fade_in", fade=(0.2, 0.6), steady="similarity")
    return replace(recipe, model=replace(recipe.model, view=view), augmentation=Recast(background="other"))

"""Kinetics-400 as the field trains it: VideoMAE-B, Video Swin-T and r3d_18, each plain and with ALBAR.

What is theirs of each: optimiser, schedule, augmentations, repeated augmentation and clip shape, of the places that
each recipe names. None has been trained here to its end.

``lr`` is for ``lr_batch`` clips in a step and follows ``batch_size`` (``optimisers.batch_rule``), so the same recipe is
for one GPU, 8 or 64: give ``--batch-size`` the clips of all of them together (docs/recipes.md has a table).
"""

from dataclasses import replace

from ...pipeline.loading.sampler import AugmentConfig, ClipConfig
from ..augmentations import MixupCutmix, RandAugment
from ..config import TrainConfig
from ..methods import Albar, Baseline, Method
from ..models.config import ModelConfig
from ..optimisers.config import OptimiserConfig
from ..optimisers.schedule import ScheduleConfig
from ..step_config import StepConfig
from .kinetics400 import kinetics400_scratch
from .places import DATA, OUT

SMOOTHING, REPEATS = 0.1, 2


def kinetics400_videomae_b() -> TrainConfig:
    """VideoMAE-B from its own pretraining on Kinetics-400 (hf:MCG-NJU/videomae-base, CC BY-NC), 16x4 frames of 224.

    As its authors fine-tune it: AdamW at 5e-4 for 256 videos, two clips of each in a batch, layer-wise decay 0.75, drop
    path 0.1, 75 epochs of which 5 are warm-up, RandAugment, erasing, Mixup and CutMix, label smoothing. Their test has
    5 x 3 views (``--views.temporal 5 --views.spatial 3``).
    """
    return _videomae("kinetics400_videomae_b", Baseline(label_smoothing=SMOOTHING))


def kinetics400_videomae_b_albar() -> TrainConfig:
    """ALBAR with HMDB51's weights, everything else as ``kinetics400_videomae_b``."""
    return _videomae("kinetics400_videomae_b_albar", Albar(label_smoothing=SMOOTHING))


def kinetics400_swin_t() -> TrainConfig:
    """Video Swin-T from a random start, 32x2 frames of 224, by MViTv2's recipe for training without pretraining.

    AdamW at 8e-4 for 128 videos, two clips of each in a batch, drop path 0.1, 200 epochs of which 30 are warm-up,
    gradients clipped at 1. Tested with 4 x 3 views (``--views.temporal 4 --views.spatial 3``).
    """
    return _swin("kinetics400_swin_t", Baseline(label_smoothing=SMOOTHING))


def kinetics400_swin_t_albar() -> TrainConfig:
    """ALBAR with HMDB51's weights, everything else as ``kinetics400_swin_t``."""
    return _swin("kinetics400_swin_t_albar", Albar(label_smoothing=SMOOTHING))


def kinetics400_swin_t_imagenet() -> TrainConfig:
    """Video Swin-T from ImageNet weights (torchvision's swin_t, inflated), 32x2 frames of 224, as its authors train it.

    AdamW at 1e-3 for the head and a tenth of it for the rest, for 64 clips; 30 epochs of which 2.5 are warm-up, random
    crops and flips alone. Offline: ``--model.weights swin_t.pth``.
    """
    return _swin_imagenet("kinetics400_swin_t_imagenet", Baseline())


def kinetics400_swin_t_imagenet_albar() -> TrainConfig:
    """ALBAR with HMDB51's weights, everything else as ``kinetics400_swin_t_imagenet``."""
    return _swin_imagenet("kinetics400_swin_t_imagenet_albar", Albar())


def kinetics400_r3d18() -> TrainConfig:
    """r3d_18 from a random start, 16x2 frames of 112, the same as ``kinetics400_scratch``."""
    return replace(kinetics400_scratch(), out=OUT / "kinetics400_r3d18")


def kinetics400_r3d18_albar() -> TrainConfig:
    """ALBAR with HMDB51's weights, everything else as ``kinetics400_r3d18``."""
    return replace(kinetics400_r3d18(), out=OUT / "kinetics400_r3d18_albar", method=Albar())


def _videomae(name: str, method: Method) -> TrainConfig:
    return TrainConfig(
        data=DATA / "kinetics400" / "train",
        out=OUT / name,
        model=ModelConfig(name="hf:MCG-NJU/videomae-base", weights="pretrained", drop_path=0.1),
        method=method,
        augmentation=RandAugment(then=MixupCutmix()),
        clip=ClipConfig(frames=16, stride=4, size=224),
        augment=AugmentConfig(min_area=0.08, repeats=REPEATS),
        optimiser=OptimiserConfig(
            name="adamw", lr=5e-4, lr_batch=256 * REPEATS, weight_decay=0.05, layer_decay=0.75, decay_norms=False
        ),
        schedule=ScheduleConfig(warmup_epochs=5, final=2e-3),  # to 1e-6
        epochs=75,
        batch_size=256,
    )


def _swin(name: str, method: Method) -> TrainConfig:
    return TrainConfig(
        data=DATA / "kinetics400" / "train",
        out=OUT / name,
        model=ModelConfig(name="swin3d_t", drop_path=0.1),
        method=method,
        augmentation=RandAugment(then=MixupCutmix()),
        clip=ClipConfig(frames=32, stride=2, size=224),
        augment=AugmentConfig(min_area=0.08, repeats=REPEATS),
        optimiser=OptimiserConfig(name="adamw", lr=8e-4, lr_batch=128 * REPEATS, weight_decay=0.05, decay_norms=False),
        schedule=ScheduleConfig(warmup_epochs=30, final=0.01),
        step=StepConfig(clip_grad=1.0),
        epochs=200,
        batch_size=256,
    )


def _swin_imagenet(name: str, method: Method) -> TrainConfig:
    return TrainConfig(
        data=DATA / "kinetics400" / "train",
        out=OUT / name,
        model=ModelConfig(name="swin3d_t", weights="imagenet", drop_path=0.1, head_dropout=0.5),
        method=method,
        clip=ClipConfig(frames=32, stride=2, size=224),
        augment=AugmentConfig(min_area=0.08),
        optimiser=OptimiserConfig(
            name="adamw",
            lr=1e-4,
            lr_batch=64,
            head_lr=10.0,
            weight_decay=0.02,
            no_decay=("norm", "relative_position_bias_table"),
        ),
        schedule=ScheduleConfig(warmup_epochs=2.5),
        epochs=30,
        batch_size=64,
    )


RECIPES = (
    kinetics400_videomae_b,
    kinetics400_videomae_b_albar,
    kinetics400_swin_t,
    kinetics400_swin_t_albar,
    kinetics400_swin_t_imagenet,
    kinetics400_swin_t_imagenet_albar,
    kinetics400_r3d18,
    kinetics400_r3d18_albar,
)

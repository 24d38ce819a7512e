"""Kinetics-400 as the field trains it: VideoMAE-B, Video Swin-T and r3d_18, each plain and with ALBAR.

What is theirs of each: optimiser, schedule, augmentations and clip shape, of the places that each recipe names. What is
not: repeated augmentation (two draws of a video in one batch). None has been trained here to its end.

The constants are for the recipe's batch. ``optimisers.batch_rule`` has what follows another one: with k times the clips
AdamW's rate takes the square root of k, SGD's k.
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

SMOOTHING = 0.1


def kinetics400_videomae_b() -> TrainConfig:
    """VideoMAE-B from its own pretraining on Kinetics-400 (hf:MCG-NJU/videomae-base, CC BY-NC), 16x4 frames of 224.

    As its authors fine-tune it: AdamW at 5e-4 for 256 clips, layer-wise decay 0.75, drop path 0.1, 75 epochs of which 5
    are warm-up, RandAugment, erasing, Mixup and CutMix, label smoothing. Their test has 5 x 3 views
    (``--views.temporal 5 --views.spatial 3``).
    """
    return _videomae("kinetics400_videomae_b", Baseline(label_smoothing=SMOOTHING))


def kinetics400_videomae_b_albar() -> TrainConfig:
    """ALBAR with HMDB51's weights, everything else as ``kinetics400_videomae_b``."""
    return _videomae("kinetics400_videomae_b_albar", Albar(label_smoothing=SMOOTHING))


def kinetics400_swin_t() -> TrainConfig:
    """Video Swin-T from a random start, 32x2 frames of 224, by MViTv2's recipe for training without pretraining.

    AdamW at 8e-4 for 256 clips, drop path 0.1, 200 epochs of which 30 are warm-up, gradients clipped at 1. Tested with
    4 x 3 views (``--views.temporal 4 --views.spatial 3``).
    """
    return _swin("kinetics400_swin_t", Baseline(label_smoothing=SMOOTHING))


def kinetics400_swin_t_albar() -> TrainConfig:
    """ALBAR with HMDB51's weights, everything else as ``kinetics400_swin_t``."""
    return _swin("kinetics400_swin_t_albar", Albar(label_smoothing=SMOOTHING))


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
        augment=AugmentConfig(min_area=0.08),
        optimiser=OptimiserConfig(name="adamw", lr=5e-4, weight_decay=0.05, layer_decay=0.75, decay_norms=False),
        schedule=ScheduleConfig(warmup=5 / 75, final=2e-3),  # to 1e-6
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
        augment=AugmentConfig(min_area=0.08),
        optimiser=OptimiserConfig(name="adamw", lr=8e-4, weight_decay=0.05, decay_norms=False),
        schedule=ScheduleConfig(warmup=30 / 200, final=0.01),
        step=StepConfig(clip_grad=1.0),
        epochs=200,
        batch_size=256,
    )


RECIPES = (
    kinetics400_videomae_b,
    kinetics400_videomae_b_albar,
    kinetics400_swin_t,
    kinetics400_swin_t_albar,
    kinetics400_r3d18,
    kinetics400_r3d18_albar,
)

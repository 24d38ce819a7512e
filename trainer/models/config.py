"""Which network a run trains."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from ...pipeline.errors import InputError
from ...pipeline.options import between, check_options


@dataclass(frozen=True, kw_only=True)
class ClipViewConfig:
    """What a network sees of its clips."""

    sees: Literal["clip", "moving_part", "fade_in"] = "clip"
    """clip: clips as they are. moving_part: clips minus their mean over time, in training and afterwards. fade_in: the
    same at first; the mean comes back in the course of the run, and is all there afterwards."""
    fade: tuple[float, float] = (0.35, 0.8)
    """With fade_in: from and to which share of the run the mean over time comes back, evenly."""
    steady: Literal["off", "translation", "similarity", "homography"] = "off"
    """Take the camera's motion out of each clip first, in training and afterwards: shifts, also turns and zooms, or any
    plane's motion. Clips in which it is not found are left as they are, and Recast then recasts all of the clip."""

    def __post_init__(self):
        check_options(self, "model.view.")
        begin, end = self.fade
        if not 0 <= begin <= end <= 1:
            raise InputError(
                f"model.view.fade is {begin:g} {end:g}; expected two shares of the run, 0 <= from <= to <= 1"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str = "swin3d_t"
    """swin3d_t, swin3d_s, swin3d_b, r3d_18, mc3_18, r2plus1d_18, s3d, mvit_v1_b, mvit_v2_s, motion_cnn, motion_resnet;
    `hf:ORG/NAME` of the Hugging Face Hub or `hf:FOLDER`: VideoMAE, ViViT, TimeSformer, V-JEPA 2 or VideoPrism; or
    `module:function`, which is called with the number of classes (as `num_classes=` where it has that) and returns a
    module from clips (B,3,T,h,w) to logits (B,classes), or a `Network` with its last layer, mean and std."""
    weights: str = "none"
    """none, kinetics400 (torchvision downloads its weights once), imagenet (of swin3d_t, swin3d_s and swin3d_b: those
    of torchvision's Swin of pictures, inflated, whose files are taken as well), a run of the same network (RUN,
    RUN/best or RUN/step-500; the moving average where it kept one), or a .safetensors, .pt or .pth file; pretrained:
    those of an `hf:` name. A head for another number of classes is left at its random start."""
    probe: Literal["off", "attentive"] = "off"
    """attentive: an `hf:` network is frozen, and a small network of attention over its tokens is trained with the last
    layer (V-JEPA 2's protocol)."""
    drop_path: float | None = None
    """Drop path (stochastic depth): rate of the last block, to which it grows evenly from 0 at the first. By default
    the network's own."""
    architecture: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = ""
    """Sizes of an `hf:` network as JSON, which a run writes down: it is loaded again without the folder or the Hub."""
    view: ClipViewConfig = field(default_factory=ClipViewConfig)
    """What it sees of its clips."""
    head_dropout: float = 0.0
    """Probability of dropping a feature before the last layer, of networks whose last layer is linear."""

    def __post_init__(self):
        check_options(self, "model.", head_dropout=between(0, 1, "a probability", without_high=True))

"""Which network a run trains."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str = "swin3d_t"
    """swin3d_t, swin3d_s, swin3d_b, r3d_18, mc3_18, r2plus1d_18, s3d, mvit_v1_b, mvit_v2_s, motion_cnn, or
    `module:function`, which is called with the number of classes and returns a module from clips (B,3,T,h,w) to logits
    (B,classes)."""
    weights: str = "none"
    """none, kinetics400 (torchvision downloads its weights once), a run of the same network (RUN, RUN/best or
    RUN/step-500; the moving average where it kept one), or a .safetensors, .pt or .pth file. A head for another number
    of classes is left at its random start."""

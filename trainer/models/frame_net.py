"""Picture classifiers as video models: every frame by itself, logits averaged. They cannot see motion.

Give ``--model.name unstill.trainer.models.frame_net:resnet50`` with ``--clip.frames 1`` for the reference network of
StillMix, whose most certain frames become its stills.
"""

import torchvision.models as zoo
from torch import Tensor, nn


class FrameNet(nn.Module):
    """A picture network on (B,3,T,h,w).

    Args:
        picture: (N,3,h,w) -> logits (N,C).
    """

    def __init__(self, picture: nn.Module):
        super().__init__()
        self.picture = picture

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (B,C), the mean over frames."""
        frames = clips.transpose(1, 2).flatten(0, 1)
        return self.picture(frames).view(len(clips), clips.shape[2], -1).mean(1)


def resnet18(classes: int) -> nn.Module:
    """ResNet-18, random weights."""
    return FrameNet(zoo.resnet18(num_classes=classes))


def resnet50(classes: int) -> nn.Module:
    """ResNet-50, random weights; StillMix starts from ImageNet's (``--model.weights`` takes torchvision's file)."""
    return FrameNet(zoo.resnet50(num_classes=classes))


def swin_t(classes: int) -> nn.Module:
    """Swin-T, random weights."""
    return FrameNet(zoo.swin_t(num_classes=classes))

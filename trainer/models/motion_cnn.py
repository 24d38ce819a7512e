"""A small network for small clips: it learns motion on two CPU cores in a minute."""

from torch import Tensor, nn

# (channels, stride over time, height, width): time is halved late, so that the first layers see every frame
STAGES = ((12, (1, 2, 2)), (24, (1, 2, 2)), (32, (2, 2, 2)), (48, (2, 1, 1)))


class MotionCNN(nn.Module):
    """Four 3x3x3 convolutions with group norm and ReLU, global average, one linear head.

    Group norm, because it has no batch statistics: motion and static clips may share a batch or not, with equal
    results.
    """

    def __init__(self, classes: int):
        super().__init__()
        layers, channels = [], 3
        for width, stride in STAGES:
            layers += [nn.Conv3d(channels, width, 3, stride, padding=1), nn.GroupNorm(4, width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (B,3,T,h,w) -> logits (B,C)."""
        return self.head(self.features(x).mean((2, 3, 4)))

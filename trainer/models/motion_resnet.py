"""A deeper small network for small clips: what holds for four layers need not hold for eleven."""

from torch import Tensor, nn
from torch.nn.functional import relu

# (channels, stride over time, height, width, residual blocks): no block where there are most positions
STAGES = ((12, (1, 2, 2), 0), (16, (1, 2, 2), 1), (32, (2, 2, 2), 2), (48, (2, 1, 1), 1))


class ResidualBlock(nn.Module):
    """x + two 3x3x3 convolutions with group norm, ReLU between and after (He et al. 2016).

    The last norm's scale starts at zero, so that a block starts as the identity (Goyal et al. 2017).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.convs = nn.Sequential(*_layer(channels, channels), *_layer(channels, channels)[:-1])
        nn.init.zeros_(self.convs[-1].weight)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,T,h,w) -> the same shape."""
        return relu(x + self.convs(x))


class MotionResNet(nn.Module):
    """Twelve 3x3x3 convolutions, eight of them in residual blocks; group norm, global average, one linear head.

    The stages are those of ``MotionCNN``, which has four convolutions; a forward has 2.9 times its operations.
    """

    def __init__(self, classes: int):
        super().__init__()
        layers, channels = [], 3
        for width, stride, blocks in STAGES:
            layers += [*_layer(channels, width, stride), *(ResidualBlock(width) for _ in range(blocks))]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Clips (B,3,T,h,w) -> logits (B,C)."""
        return self.head(self.features(x).mean((2, 3, 4)))


def _layer(channels: int, width: int, stride: int | tuple[int, int, int] = 1) -> list[nn.Module]:
    return [nn.Conv3d(channels, width, 3, stride, padding=1), nn.GroupNorm(4, width), nn.ReLU()]

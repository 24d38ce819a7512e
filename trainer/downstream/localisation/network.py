"""A small one-stage head without anchors: a pyramid of temporal convolutions that each point of time is scored in.

In the spirit of ActionFormer (Zhang et al., ECCV 2022, arXiv 2202.07925), with convolutions in place of attention: the
pyramid, the shared heads for classes and ends, their starting values and the points are its; the width is not.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 6
PRIOR = 0.01  # score of every class before training, as in focal loss' paper


class _Layer(nn.Module):
    """A convolution of width 3, normalised over channels at each time, and ReLU; padding stays out of it."""

    def __init__(self, width: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(width, channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B,C,T) and bool (B,T') of the output -> (B,C',T'), zero where it is not valid."""
        x = self.norm(self.conv(x).transpose(1, 2)).relu()
        return (x * valid[..., None]).transpose(1, 2)


class LocalisationHead(nn.Module):
    """Scores and ends of actions at the points of all levels.

    Args:
        width: D.
        classes: K.
        channels: width of the layers.
    """

    def __init__(self, width: int, classes: int, channels: int = 128):
        super().__init__()
        layer = lambda n=1: nn.ModuleList([_Layer(channels, channels) for _ in range(n)])  # noqa: E731
        self.embed = nn.ModuleList([_Layer(width, channels), _Layer(channels, channels)])
        self.down = nn.ModuleList([_Layer(channels, channels, stride=2) for _ in range(LEVELS - 1)])
        self.classify, self.regress = layer(2), layer(2)
        self.scores = nn.Conv1d(channels, classes, 3, padding=1)
        self.reach = nn.Conv1d(channels, 2, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(LEVELS))
        nn.init.constant_(self.scores.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, rows: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score every point.

        Args:
            rows: float32 (B,T,D); T is a multiple of 2^(LEVELS - 1).
            valid: bool (B,T), false behind the end of a video.

        Returns:
            logits: (B,P,K), point by point as ``Points.of`` has them.
            reach: (B,P,2), to the start and to the end, in strides of the level, 0 or more.
            valid: bool (B,P).
        """
        x = rows.transpose(1, 2) * valid[:, None]
        for layer in self.embed:
            x = layer(x, valid)
        found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for level in range(LEVELS):
            if level:
                valid = valid[:, ::2]
                x = self.down[level - 1](x, valid)
            kinds = ends = x
            for one, other in zip(self.classify, self.regress, strict=True):
                kinds, ends = one(kinds, valid), other(ends, valid)
            found[0].append(self.scores(kinds).transpose(1, 2))
            found[1].append(F.relu(self.scale[level] * self.reach(ends)).transpose(1, 2))
            found[2].append(valid)
        return torch.cat(found[0], 1), torch.cat(found[1], 1), torch.cat(found[2], 1)

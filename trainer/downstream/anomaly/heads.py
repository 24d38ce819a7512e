"""Two heads that learn from labels of videos when something abnormal happens, and their losses.

``MilRanking`` is that of Sultani, Chen and Shah (CVPR 2018), constants included. ``TopMagnitude`` follows RTFM (Tian et
al., ICCV 2021) in its loss; in place of RTFM's multi-scale temporal network it has one temporal convolution. All
constants are those of the authors' public code.

A bag is a video in 32 segments. Both heads map bags (B, S, D) to scores (B, S) between 0 and 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .segments import Bounds, even_segments, ranking_segments


class MilRanking(nn.Module):
    """Sultani's network: D - 512 ReLU - 32 - 1 sigmoid, with dropout of 0.6 between layers; segments do not see others.

    Args:
        width: D.
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.6), nn.Linear(512, 32), nn.Dropout(0.6), nn.Linear(32, 1)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, bags: Tensor) -> Tensor:
        """(B, S, D) -> (B, S)."""
        return self.layers(bags)[..., 0].sigmoid()

    def loss(self, abnormal: Tensor, normal: Tensor) -> Tensor:
        """``mil_ranking_loss`` of two batches of bags, plus 0.001 times the sum of the squared weights."""
        ranking = mil_ranking_loss(self(abnormal), self(normal))
        squares = sum((p.square().sum() for p in self.parameters() if p.ndim == 2), ranking.new_zeros(()))
        return ranking + 0.001 * squares


def mil_ranking_loss(abnormal: Tensor, normal: Tensor) -> Tensor:
    """Hinge over all pairs of bags, smoothness and sparsity; the authors' custom_objective.

        1/N sum over normal n, abnormal a of max(0, 1 - max_s a_s + max_s n_s)
        + 8e-5 sum over a, s of a_s  +  8e-5 sum over a, s of (a_(s+1) - a_s)^2

    Args:
        abnormal, normal: scores (A, S) and (N, S).
    """
    hinge = (1 - abnormal.amax(1)[None] + normal.amax(1)[:, None]).clamp(min=0)
    steps = abnormal[:, 1:] - abnormal[:, :-1]
    return hinge.sum() / len(normal) + 8e-5 * abnormal.sum() + 8e-5 * steps.square().sum()


class TopMagnitude(nn.Module):
    """A temporal convolution whose output is long where something abnormal happens, and a classifier of segments.

    In training 7 in 10 segments, drawn at random, cannot be among the longest of their bag, as in RTFM's code.

    Args:
        width: D.
        top: segments of a bag that its loss looks at, those of the longest features.
    """

    def __init__(self, width: int, top: int = 3):
        super().__init__()
        self.top = top
        self.embed = nn.Sequential(nn.Conv1d(width, 512, 3, padding=1), nn.ReLU(), nn.Dropout(0.7))
        self.classify = nn.Sequential(
            nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.7), nn.Linear(128, 1), nn.Flatten(-2), nn.Sigmoid()
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d) and layer.bias is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, bags: Tensor) -> Tensor:
        """(B, S, D) -> (B, S)."""
        return self.classify(self._embedded(bags))

    def loss(self, abnormal: Tensor, normal: Tensor) -> Tensor:
        """``top_magnitude_loss`` of two batches of bags."""
        found, usual = self._embedded(abnormal), self._embedded(normal)
        rows = [
            F.dropout(bags.norm(dim=2), 0.7, self.training).topk(self.top, dim=1).indices for bags in (found, usual)
        ]
        return top_magnitude_loss(found, usual, self.classify(found), self.classify(usual), *rows)

    def _embedded(self, bags: Tensor) -> Tensor:
        return self.embed(bags.transpose(1, 2)).transpose(1, 2)


def top_magnitude_loss(
    abnormal: Tensor,
    normal: Tensor,
    abnormal_score: Tensor,
    normal_score: Tensor,
    abnormal_rows: Tensor,
    normal_rows: Tensor,
) -> Tensor:
    """RTFM's loss, with the k segments of the longest features of each bag:

        binary cross-entropy of the mean score of the k against the bag's label
        + 1e-4 mean (|100 - |mean of the k abnormal features||  +  |mean of the k normal features|)^2
        + 8e-4 sum (a_(s+1) - a_s)^2  +  8e-3 sqrt(sum a_s^2)

    Both last sums are over all abnormal bags. Abnormal and normal bags are paired in their order. Differences are taken
    within bags; RTFM's code also takes those between the end of a bag and the start of the next.

    Args:
        abnormal, normal: features (B, S, E).
        abnormal_score, normal_score: (B, S).
        abnormal_rows, normal_rows: int64 (B, k), the k segments.
    """
    features, scores = [], []
    for values, score, rows in (
        (abnormal, abnormal_score, abnormal_rows),
        (normal, normal_score, normal_rows),
    ):
        features.append(values.gather(1, rows[..., None].expand(-1, -1, values.shape[2])).mean(1))
        scores.append(score.gather(1, rows).mean(1))
    labels = torch.cat([torch.ones_like(scores[0]), torch.zeros_like(scores[1])])
    entropy = F.binary_cross_entropy(torch.cat(scores), labels)
    margin = (100 - features[0].norm(dim=1)).abs() + features[1].norm(dim=1)
    steps = abnormal_score[:, 1:] - abnormal_score[:, :-1]
    return entropy + 1e-4 * margin.square().mean() + 8e-4 * steps.square().sum() + 8e-3 * abnormal_score.norm()


@dataclass(frozen=True)
class HeadRecipe:
    """How a head is made and trained.

    Attributes:
        build: width D -> network with ``loss``.
        optimiser: parameters -> optimiser.
        bags: abnormal, and as many normal, videos of a batch.
        segments: number of rows -> bounds of the segments.
        unit_length: whether segments are scaled to length 1.
        segments_in_test: whether a test video is scored in segments, as in training, or row by row.
    """

    build: Callable[[int], nn.Module]
    optimiser: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    bags: int
    segments: Callable[[int], Bounds]
    unit_length: bool
    segments_in_test: bool


HEADS = {
    "mil": HeadRecipe(
        MilRanking,
        lambda p: torch.optim.Adagrad(p, lr=0.01, eps=1e-8),
        bags=30,
        segments=ranking_segments,
        unit_length=True,
        segments_in_test=True,
    ),
    "top-magnitude": HeadRecipe(
        TopMagnitude,
        lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=5e-3),
        bags=32,
        segments=even_segments,
        unit_length=False,
        segments_in_test=False,
    ),
}

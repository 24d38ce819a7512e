"""Training of the head on videos' rows, and what it then finds in a video."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ....pipeline.errors import InputError
from ....pipeline.progress import Progress
from .losses import distance_iou_loss, focal_loss
from .network import LEVELS, LocalisationHead
from .points import Points, targets_of
from .suppression import soft_nms

# of ActionFormer's public code
LEAST_SCORE, MOST_OF_A_LEVEL, SHORTEST_ROWS, MOST_OF_A_VIDEO = 1e-3, 2000, 0.05, 200
NORMALISER, MOMENTUM = 100.0, 0.9  # of the moving average of points that find something, which losses are divided by
WEIGHT_DECAY, CLIP = 0.05, 1.0
WARM_UP = 1 / 6  # share of the steps


@dataclass(frozen=True)
class TrainingVideo:
    """What the head learns from.

    Attributes:
        rows: float32 (T,D).
        start, end: float32 (N,), of its actions, in rows.
        label: int64 (N,).
    """

    rows: Tensor
    start: Tensor
    end: Tensor
    label: Tensor


@dataclass(frozen=True)
class Found:
    """N detections in a video, the surest first.

    Attributes:
        start, end: float64 (N,), rows.
        label: int64 (N,).
        score: float64 (N,).
    """

    start: np.ndarray
    end: np.ndarray
    label: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class HeadTraining:
    """How the head is trained; see ``LocaliseConfig``."""

    epochs: int
    batch_size: int
    lr: float
    channels: int
    longest: int


def train_head(
    videos: Sequence[TrainingVideo], classes: int, training: HeadTraining, *, seed: int, device: str
) -> LocalisationHead:
    """Train a head; equal videos and seed give equal weights on one machine.

    Args:
        videos: at least one.
        classes: K.
        training: how.
        seed: of weights, order and parts of long videos.
        device: where it trains.

    Returns:
        The head, in evaluation mode.

    Raises:
        InputError: the loss is no longer finite.
    """
    draw = np.random.default_rng(seed)
    batches = math.ceil(len(videos) / training.batch_size)
    steps = training.epochs * batches
    with torch.random.fork_rng(devices=[] if device == "cpu" else None), Progress("head", steps, "steps") as progress:
        torch.manual_seed(seed)
        head = LocalisationHead(videos[0].rows.shape[1], classes, training.channels).to(device).train()
        optimiser = torch.optim.AdamW(head.parameters(), lr=training.lr, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
        normaliser, loss = NORMALISER, torch.zeros(())
        for epoch in range(training.epochs):
            order = draw.permutation(len(videos))
            for first in range(0, len(order), training.batch_size):
                chosen = [_part(videos[k], training.longest, draw) for k in order[first : first + training.batch_size]]
                loss, normaliser = _loss(head, chosen, classes, normaliser, device)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
                optimiser.step()
                schedule.step()
            if not bool(torch.isfinite(loss)):
                raise InputError(f"head, epoch {epoch + 1}: the loss is not finite; are the features very large?")
            progress.advance(batches)
    return head.eval()


def find(head: LocalisationHead, rows: Tensor, device: str) -> Found:
    """What the head finds in a video.

    Args:
        head: from ``train_head``.
        rows: float32 (T,D).
        device: where the head is.
    """
    padded, valid = _padded([rows])
    points = Points.of(padded.shape[1], LEVELS)
    with torch.inference_mode():
        logits, reach, valid = (part[0].cpu() for part in head(padded.to(device), valid.to(device)))
    score = logits.double().sigmoid() * valid[:, None]
    columns: tuple[list[Tensor], ...] = ([], [], [], [])
    for stride in points.stride.unique().tolist():
        level = (points.stride == stride).nonzero()[:, 0]
        best = score[level].flatten().topk(min(MOST_OF_A_LEVEL, len(level) * score.shape[1]))
        place, kind = level[best.indices // score.shape[1]], best.indices % score.shape[1]
        start = points.at[place] - reach[place, 0] * points.stride[place]
        end = points.at[place] + reach[place, 1] * points.stride[place]
        good = (best.values > LEAST_SCORE) & (end - start > SHORTEST_ROWS)
        for column, value in zip(columns, (start, end, kind, best.values), strict=True):
            column.append(value[good])
    start, end, kind, sure = (torch.cat(column).numpy() for column in columns)
    return _suppressed(Found(start.astype(np.float64), end.astype(np.float64), kind, sure))


def _suppressed(found: Found) -> Found:
    """Soft-NMS within each class, then the surest of all."""
    kept, scores = [], []
    for kind in np.unique(found.label):
        own = np.flatnonzero(found.label == kind)
        which, score = soft_nms(found.start[own], found.end[own], found.score[own], least=LEAST_SCORE)
        kept.append(own[which[:MOST_OF_A_VIDEO]])
        scores.append(score[:MOST_OF_A_VIDEO])
    rows = np.concatenate([np.empty(0, np.int64), *kept])
    score = np.concatenate([np.empty(0), *scores])
    order = np.argsort(-score, kind="stable")[:MOST_OF_A_VIDEO]
    rows = rows[order]
    return Found(found.start[rows], found.end[rows], found.label[rows], score[order])


def _rate(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _loss(
    head: LocalisationHead, videos: Sequence[TrainingVideo], classes: int, normaliser: float, device: str
) -> tuple[Tensor, float]:
    """Focal loss of all points plus distance-IoU loss of those that find something, and the new normaliser."""
    rows, valid = _padded([video.rows for video in videos])
    points = Points.of(rows.shape[1], LEVELS)
    parts = [targets_of(points, video.start, video.end, video.label, classes) for video in videos]
    kinds, truth = (torch.stack(part).to(device) for part in zip(*parts, strict=True))
    logits, reach, valid = head(rows.to(device), valid.to(device))
    finds = kinds.any(2) & valid
    normaliser = MOMENTUM * normaliser + (1 - MOMENTUM) * max(1, int(finds.sum()))
    loss = focal_loss(logits[valid], kinds[valid]).sum() + distance_iou_loss(reach[finds], truth[finds]).sum()
    return loss / normaliser, normaliser


def _padded(videos: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(B,T,D) with zeros behind the ends, and bool (B,T), where T fits the pyramid."""
    most, step = max(len(rows) for rows in videos), 2 ** (LEVELS - 1)
    rows = videos[0].new_zeros(len(videos), -(-most // step) * step, videos[0].shape[1])
    valid = torch.zeros(rows.shape[:2], dtype=torch.bool)
    for number, video in enumerate(videos):
        rows[number, : len(video)], valid[number, : len(video)] = video, True
    return rows, valid


def _part(video: TrainingVideo, longest: int, draw: np.random.Generator) -> TrainingVideo:
    """A video, or a random part of a long one; actions count of which at least half is in it, and are cut at its ends.

    The part contains the middle of one of the actions, if there are any.
    """
    rows = len(video.rows)
    if rows <= longest:
        return video
    first = int(draw.integers(rows - longest + 1))
    if len(video.start):
        chosen = int(draw.integers(len(video.start)))
        middle = float(video.start[chosen] + video.end[chosen]) / 2
        first = min(max(int(middle) - int(draw.integers(longest)), 0), rows - longest)
    start, end = (video.start - first).clamp(min=0), (video.end - first).clamp(max=longest - 1)
    kept = end - start >= 0.5 * (video.end - video.start)
    return TrainingVideo(video.rows[first : first + longest], start[kept], end[kept], video.label[kept])

"""Soft-NMS: of detections that overlap, the less sure ones become less sure still."""

import numpy as np

from ..temporal_map import temporal_iou


def soft_nms(
    start: np.ndarray, end: np.ndarray, score: np.ndarray, *, sigma: float = 0.5, least: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Soft-NMS with a Gaussian, of one class; Bodla et al., ICCV 2017 (arXiv 1704.04503), equation 3.

    The surest detection is taken, all others that are left are multiplied by exp(-IoU^2 / sigma), and so on.

    Args:
        start, end: float64 (N,).
        score: float64 (N,).
        sigma: of the Gaussian; 0.5 in ActionFormer's code.
        least: detections whose score falls below it are dropped.

    Returns:
        int64 (M,), which detections are kept, by falling new score, and float64 (M,), these scores.
    """
    left = np.arange(len(score))
    now = score.astype(np.float64)
    left, now = left[now >= least], now[now >= least]
    kept, scores = [], []
    while len(left):
        best = int(now.argmax())
        chosen = left[best]
        kept.append(int(chosen))
        scores.append(float(now[best]))
        left, now = np.delete(left, best), np.delete(now, best)
        overlap = temporal_iou(float(start[chosen]), float(end[chosen]), start[left], end[left])
        now = now * np.exp(-(overlap**2) / sigma)
        left, now = left[now >= least], now[now >= least]
    return np.array(kept, np.int64), np.array(scores)

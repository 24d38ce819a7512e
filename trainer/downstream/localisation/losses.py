"""What the head minimises: focal loss of the classes, distance-IoU loss of the ends."""

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of independent classes, not reduced; Lin et al., ICCV 2017 (arXiv 1708.02002), equation 5.

        -alpha_t (1 - p_t)^gamma log p_t;   p_t is p where the target is 1, else 1 - p; alpha_t likewise

    Args:
        logits: of any shape; p is their sigmoid.
        targets: 0 or 1, of that shape.
        alpha, gamma: the paper's constants.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    wrong = p * (1 - targets) + (1 - p) * targets
    return (alpha * targets + (1 - alpha) * (1 - targets)) * wrong**gamma * entropy


def distance_iou_loss(found: Tensor, truth: Tensor) -> Tensor:
    """Distance-IoU loss of segments around one point, (N,); Zheng et al., AAAI 2020 (arXiv 1911.08287), equation 7.

        1 - IoU + (distance of the centres / length of the smallest segment around both)^2

    Args:
        found, truth: (N,2), how far the segments reach to the left and to the right of their point, 0 or more. Both
            contain the point, so that they always meet.
    """
    shared = torch.minimum(found, truth).sum(1)
    union = found.sum(1) + truth.sum(1) - shared
    around = torch.maximum(found, truth).sum(1)
    centres = 0.5 * ((found[:, 1] - found[:, 0]) - (truth[:, 1] - truth[:, 0]))
    return 1 - shared / union.clamp(min=1e-8) + (centres / around.clamp(min=1e-8)).square()

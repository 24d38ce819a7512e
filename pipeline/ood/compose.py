"""Putting people before backgrounds: pure functions of frames and masks.

    SCUBA     out_t = M_t frame_t + (1 - M_t) background               one background for the whole video
    Confl-FG  out_t = M_t frame_t + (1 - M_t) [ S still + (1 - S) background ]

Confl-FG's published videos do not say where the still actor goes. Ours: cut out by the box around its mask, scaled down
if it is wider than half the frame or higher than all of it, put in the middle of that half of the frame (left or right)
that the moving actor covers less over the whole video, at the height it had in its own frame, moved inside. The moving
actor is on top.
"""

import numpy as np
from PIL import Image


def over_background(frames: np.ndarray, masks: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Frames where the mask is set, else the background.

    Args:
        frames: uint8 (T,H,W,3).
        masks: bool (T,H,W).
        background: uint8 (H,W,3), or (T,H,W,3).
    """
    return np.where(masks[..., None], frames, background)


def with_still_actor(background: np.ndarray, masks: np.ndarray, still: np.ndarray, still_mask: np.ndarray):
    """The background of a Confl-FG video.

    Args:
        background: uint8 (H,W,3).
        masks: bool (T,H,W), of the moving actor.
        still: uint8 (h,w,3), a frame of another video.
        still_mask: bool (h,w), its actor; not empty.

    Returns:
        uint8 (H,W,3), and the corner (top, left) of the still actor's box in it.
    """
    height, width = background.shape[:2]
    rows, columns = (np.flatnonzero(still_mask.any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    actor, shape = still[box], still_mask[box]
    scale = min(1.0, height / shape.shape[0], (width / 2) / shape.shape[1])
    if scale < 1:
        size = max(1, int(shape.shape[1] * scale)), max(1, int(shape.shape[0] * scale))
        actor = np.asarray(Image.fromarray(actor).resize(size, Image.Resampling.BILINEAR))
        shape = np.asarray(Image.fromarray(shape).resize(size, Image.Resampling.NEAREST))
    covered = masks.sum(0).sum(0)  # (W,): how often the moving actor is in each column
    right = covered[: width // 2].sum() > covered[width - width // 2 :].sum()
    centre = width * (3 / 4 if right else 1 / 4)
    left = int(np.clip(round(centre - shape.shape[1] / 2), 0, width - shape.shape[1]))
    middle = (rows[0] + rows[-1] + 1) / 2 / still_mask.shape[0] * height
    top = int(np.clip(round(middle - shape.shape[0] / 2), 0, height - shape.shape[0]))
    out = background.copy()
    spot = out[top : top + shape.shape[0], left : left + shape.shape[1]]
    spot[shape] = actor[shape]
    return out, (top, left)

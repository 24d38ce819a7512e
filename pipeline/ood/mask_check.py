"""Are masks good enough to cut with? Per video numbers, a list to review, and how much background boxes let through.

A box around a person holds background, and a model that reads backgrounds still scores on composites cut by boxes: the
flaw that ALBAR's authors fixed for UCF101 with segmentation masks. ``leak`` is that background: the share of the boxes
that the masks leave out. What it does to accuracy is seen by building both sets, and evaluating
``--scuba boxes PATH masks PATH``.

Limits of the flags are ours; no published ones exist.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from tyro.conf import Positional, arg

from ..atomic_files import write_atomic
from ..errors import InputError
from ..progress import Progress
from ..safe_text import csv_cell
from ..sandbox.process import Sandbox
from ..sources.layouts import SourceConfig, list_source
from .masks import MaskFrom, MaskValue, either, open_masks
from .video_files import read_frames

MOST_EMPTY, LEAST_IOU, MOST_OUTSIDE, AREA_TO_BOX = 0.2, 0.3, 0.2, (0.15, 1.1)
COLUMNS = ("video", "frames", "empty", "area", "least_iou", "area_to_box", "outside_box", "leak", "flags")


@dataclass(frozen=True, kw_only=True)
class MaskCheckConfig(SourceConfig):
    """Check the masks of videos before composites are built from them."""

    masks: Annotated[Path, Positional, arg(metavar="MASKS")]
    """The masks; see --mask-from."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """The .csv to write, the videos to review first."""
    mask_from: MaskFrom = "segmentation"
    """What MASKS holds, as for `unstill ood build`."""
    mask_value: MaskValue | None = None
    """As for `unstill ood build`."""
    saliency: Path | None = None
    """As for `unstill ood build`."""
    saliency_value: MaskValue = "any"
    """As for `unstill ood build`."""
    first_box_only: bool = False
    """Of several boxes in a frame use the first, in --boxes and in MASKS; here by default all."""
    sandbox: Sandbox = "auto"
    """Fences around the processes that decode: require stops where this system lacks one, auto says so and goes on, off
    puts up none (time and memory stay limited)."""
    boxes: Path | None = None
    """Boxes of the same people, to compare the masks with, and to measure how much they let through."""


@dataclass(frozen=True)
class MaskQuality:
    """One video's masks; shares in [0,1], NaN where there is nothing to compare with.

    Attributes:
        frames: number of masks.
        empty: share of frames without a mask, between the first and the last that has one.
        area: share of the picture that non-empty masks cover.
        least_iou: smallest overlap (intersection over union) of two masks that follow each other.
        area_to_box: area of the masks over that of the boxes.
        outside_box: share of the masks outside the boxes.
        leak: share of the boxes outside the masks: the background that boxes let through.
    """

    frames: int
    empty: float
    area: float
    least_iou: float
    area_to_box: float
    outside_box: float
    leak: float

    @property
    def flags(self) -> list[str]:
        """Why somebody should look at it; empty when nothing is conspicuous."""
        low, high = AREA_TO_BOX
        found = {
            "no masks": self.frames == 0 or np.isnan(self.area),
            "empty frames": self.empty > MOST_EMPTY,
            "jumps": self.least_iou < LEAST_IOU,
            "outside its box": self.outside_box > MOST_OUTSIDE,
            "unlike its box": self.area_to_box < low or self.area_to_box > high,
        }
        return [name for name, present in found.items() if present]


def mask_quality(masks: np.ndarray, boxes: np.ndarray | None = None) -> MaskQuality:
    """Measure one video.

    Args:
        masks: bool (T,H,W).
        boxes: bool (T',H,W), filled boxes; frames where either has nothing do not count in the comparison.
    """
    seen = np.flatnonzero(masks.any((1, 2)))
    nan = float("nan")
    if not len(seen):
        return MaskQuality(len(masks), 1.0, nan, nan, nan, nan, nan)
    part = masks[seen[0] : seen[-1] + 1]
    both = (part[1:] & part[:-1]).sum((1, 2))
    either = (part[1:] | part[:-1]).sum((1, 2))
    adjacent = part[1:].any((1, 2)) & part[:-1].any((1, 2))
    least_iou = float((both[adjacent] / either[adjacent]).min()) if adjacent.any() else nan
    ratio = outside = leak = nan
    if boxes is not None:
        count = min(len(masks), len(boxes))
        masks, boxes = masks[:count], boxes[:count]
        compared = masks.any((1, 2)) & boxes.any((1, 2))
        if compared.any():
            m, b = masks[compared], boxes[compared]
            ratio, outside = float(m.sum() / b.sum()), float((m & ~b).sum() / m.sum())
            leak = float((b & ~m).sum() / b.sum())
    empty = float(1 - part.any((1, 2)).mean())
    return MaskQuality(len(masks), empty, float(masks[seen[seen < len(masks)]].mean()), least_iou, ratio, outside, leak)


def check_masks(config: MaskCheckConfig) -> dict[str, MaskQuality | str]:
    """Measure every video and write the list, flagged ones first; returns the measures, or why there are none.

    Raises:
        InputError: videos or boxes cannot be read.
    """
    listing = list_source(config)
    first = config.first_box_only
    read = open_masks(config.masks, config.mask_from, first_box_only=first, value=config.mask_value)
    if config.saliency is not None:
        read = either(read, open_masks(config.saliency, "segmentation", value=config.saliency_value))
    read_boxes = open_masks(config.boxes, "boxes", first_box_only=first) if config.boxes else lambda video, shape: None
    found: dict[str, MaskQuality | str] = {}
    with Progress("checking masks", len(listing.videos), "videos") as progress:
        for video in listing.videos:
            try:
                frames, _ = read_frames(Path(config.source) / video.path, config.sandbox)
                name, shape = str(Path(video.path).with_suffix("")), frames.shape[:3]
                masks = read(name, shape)
                found[video.path] = "no masks" if masks is None else mask_quality(masks, read_boxes(name, shape))
            except InputError as error:  # the list of what to look at is what this is for
                found[video.path] = str(error)
            progress.advance()
    rows = [_row(video, quality) for video, quality in found.items()]
    rows.sort(key=lambda row: (row["flags"] == "", row["video"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, list[str](COLUMNS), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(config.out, text.getvalue().encode())
    return found


def mean_leak(found: dict[str, MaskQuality | str]) -> float:
    """Mean share of the boxes that is background; NaN without boxes."""
    leaks = [quality.leak for quality in found.values() if isinstance(quality, MaskQuality)]
    leaks = [leak for leak in leaks if not np.isnan(leak)]
    return float(np.mean(leaks)) if leaks else float("nan")


def _row(video: str, quality: MaskQuality | str) -> dict[str, str]:
    if isinstance(quality, str):
        return {"video": csv_cell(video), "frames": "0", "flags": csv_cell(quality)}
    numbers = {name: getattr(quality, name) for name in COLUMNS[2:-1]}
    cells = {name: "" if np.isnan(value) else f"{value:.4f}" for name, value in numbers.items()}
    return {"video": csv_cell(video), "frames": str(quality.frames), **cells, "flags": "; ".join(quality.flags)}

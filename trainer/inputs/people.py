"""Where people are in each training clip, from boxes: for ActorCutMix, and for SDN, which paints them over.

A .csv with the columns video,frame,left,top,right,bottom, or a .json {video: {frame: [[left, top, right, bottom]]}}:
``video`` is the sample's key, frames of the converted video count from 0, and sides are shares of its picture, 0 to 1.
Give only boxes to be believed: the papers keep detections with a score above 0.4 (ActorCutMix) or 0.3 (SDN).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import InputError
from ...pipeline.loading.clips import Clips
from ...pipeline.loading.sampler import ClipConfig, clip_strides, frame_numbers
from ...pipeline.ood.masks import read_boxes
from ...pipeline.shards.index import SampleIndex
from ..batch import upload
from .config import FrameTransform


class PeopleMasks:
    """Makes masks of clips, from what the host knows of them: it does not wait for the device.

    Args:
        path: the boxes.
        data: dataset folder made by ``unstill convert``.
        clip: the run's clip shape.
        transform: what the run does to frames (``InputConfig.transform``), and so to masks.

    Raises:
        InputError: the boxes are not readable, or none is of a video of this dataset.
    """

    def __init__(self, path: Path, data: Path, clip: ClipConfig, transform: FrameTransform | None = None):
        index = SampleIndex.load(data)
        boxes = read_boxes(path)
        keys = index.keys()
        self._boxes = [boxes(key) or {} for key in keys]
        farthest = max(
            (side for found in self._boxes for boxes in found.values() for b in boxes for side in b), default=0
        )
        if farthest > 2:  # boxes may reach over the border, but not that far
            raise InputError(
                f"{path}: a box reaches to {farthest:g}; expected shares of the picture, 0 to 1, not pixels"
            )
        if not any(self._boxes):
            raise InputError(f"{path}: has boxes of none of the {len(keys)} videos of {data}; videos are named by key")
        self._frames, self._clip, self._transform = np.asarray(index.frames, np.int64), clip, transform

    def __call__(self, clips: Clips) -> Tensor:
        """uint8 (B,1,T,h,w) on the clips' device: 1 where a box is, cut, transformed and flipped like the clips."""
        batch, time, height, width = clips.frames.shape[:4]
        masks = np.zeros((batch, time, height, width, 1), np.uint8)
        if clips.source is None:
            raise ValueError("these clips do not say where they were cut")
        samples, start, regions = clips.source.sample, clips.source.start_frame, clips.source.region
        lengths = self._frames[samples]
        numbers = frame_numbers(self._clip, start, clip_strides(self._clip, lengths), lengths)
        for row, (sample, (top, left, tall, wide)) in enumerate(zip(samples.tolist(), regions.tolist(), strict=True)):
            boxes = self._boxes[sample]
            for t, number in enumerate(numbers[row].tolist()) if boxes else ():
                for x0, y0, x1, y1 in boxes.get(number, ()):
                    rows = slice(*(max(0, round((y - top) / tall * height)) for y in (y0, y1)))
                    columns = slice(*(max(0, round((x - left) / wide * width)) for x in (x0, x1)))
                    masks[row, t, rows, columns] = 1
        people = upload(masks, clips.frames.device)
        if self._transform is not None:
            people = self._transform(people, clips.draws)
        flip = clips.flip.bool().view(-1, 1, 1, 1, 1)
        return torch.where(flip, people.flip(3), people).movedim(4, 1)

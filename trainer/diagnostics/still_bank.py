"""``unstill still-bank``: the stills of StillMix (arXiv 2211.12883), frames that a picture classifier is surest about.

    1. train a picture network on single frames          unstill train ... (models/frame_net.py)
    2. score frames by their largest probability, and keep the upper part, quantiles tau to 1
    3. take 1024 of these at random

The authors score every frame, and of Kinetics every 20th. Without a reference network all frames are kept: the random
bank. A .csv next to the bank has every frame's scores.
"""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ...kernels import clip_prep
from ...pipeline.atomic_files import atomic_path
from ...pipeline.errors import InputError
from ...pipeline.loading.device import resolve_device
from ...pipeline.loading.frame_walk import BadVideo, FrameWalk, Region
from ...pipeline.progress import Progress
from ...pipeline.safe_text import printable
from ..evaluation.subject import load_subject
from .config import StillBankConfig

log = logging.getLogger(__name__)


class Frames:
    """Every ``every``-th frame of a dataset, in rows: row ``r`` is frame ``number[r]`` of sample ``sample[r]``."""

    def __init__(self, walk: FrameWalk, every: int, squeeze: bool):
        self._walk, self._squeeze = walk, squeeze
        own = [np.arange(0, frames, every) for frames in walk.index.frames.tolist()]
        self.number = np.concatenate(own)
        self.sample = np.repeat(np.arange(len(own)), [len(numbers) for numbers in own])
        self._first = np.concatenate([[0], np.cumsum([len(numbers) for numbers in own])])

    def of(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, uint8 (n, size, size, 3)) of some rows, ascending; of a damaged video those before the damage."""
        wanted = np.unique(self.sample[rows])
        for video in self._walk.videos(wanted.tolist(), lambda s: self.number[self._of_sample(rows, s)], self._regions):
            own, done = self._of_sample(rows, video.sample), 0
            try:
                for numbers, frames in video.parts:
                    yield own[done : done + len(numbers)], frames[:, 0]
                    done += len(numbers)
            except BadVideo as error:
                log.warning("%s: %s; left out", printable(self._walk.index.key(video.sample)), error)

    def _of_sample(self, rows: np.ndarray, sample: int) -> np.ndarray:
        low, high = np.searchsorted(rows, self._first[[sample, sample + 1]])
        return rows[low:high]

    def _regions(self, sample: int) -> list[Region]:
        height, width = int(self._walk.index.height[sample]), int(self._walk.index.width[sample])
        if self._squeeze:
            return [(0, 0, height, width)]
        side = min(height, width)
        return [((height - side) // 2, (width - side) // 2, side, side)]


def build_still_bank(config: StillBankConfig) -> Path:
    """Score, choose, and write the bank; returns its path.

    Raises:
        InputError: the dataset or the reference cannot be used, or they have different classes.
    """
    scores = None if config.reference is None else _scores(config, config.reference)
    with FrameWalk(config.data, config.size) as walk:
        frames = Frames(walk, config.every, config.squeeze)
        rows = np.arange(len(frames.number)) if scores is None else np.flatnonzero(scores[:, 1] > 0)  # without damaged
        kept = rows if scores is None else rows[most_certain(scores[rows, 1], config.tau)]
        chosen = np.sort(np.random.default_rng(config.seed).choice(kept, min(config.stills, len(kept)), replace=False))
        stills = []
        with Progress("collecting stills", len(chosen), "stills") as progress:
            for own, pictures in frames.of(chosen):
                stills.append(torch.from_numpy(pictures))
                progress.advance(len(own))
        keys = walk.index.keys()
    if not stills:
        raise InputError(f"{config.data}: no frame could be decoded; `unstill verify {config.data}` says why")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    if scores is not None:
        with open(config.out.with_suffix(".csv"), "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("key", "frame", "p_class", "p_max"))
            for row in rows:
                p_class, p_max = scores[row]
                writer.writerow((keys[frames.sample[row]], frames.number[row], f"{p_class:.6f}", f"{p_max:.6f}"))
    with atomic_path(config.out) as partial:
        save_file({"stills": torch.cat(stills).permute(0, 3, 1, 2).contiguous()}, partial)
    return config.out


def most_certain(p_max: np.ndarray, tau: float) -> np.ndarray:
    """Rows, ascending, whose score is in the upper part: without the ``tau`` N lowest."""
    order = np.argsort(p_max, kind="stable")
    return np.sort(order[int(tau * len(order)) :])


def _scores(config: StillBankConfig, reference: Path) -> np.ndarray:
    """float32 (frames, 2): probability of the video's class, and the largest one; 0 where a frame is damaged."""
    subject = load_subject(reference, trust_model_code=config.trust_model_code)
    if subject.clip.frames != 1:
        raise InputError(
            f"{reference}: sees clips of {subject.clip.frames} frames; train the reference with --clip.frames 1"
        )
    device = resolve_device(config.device)
    model = subject.model.to(device)
    with FrameWalk(config.data, subject.clip.size, device=device) as walk, torch.inference_mode():
        if tuple(walk.index.classes) != subject.classes:
            raise InputError(f"{reference}: was trained on other classes than {config.data} has")
        frames = Frames(walk, config.every, config.squeeze)
        labels = np.asarray(walk.index.label)
        scores = np.zeros((len(frames.number), 2), np.float32)
        with Progress("scoring", len(scores), "frames") as progress:
            for rows, pictures in frames.of(np.arange(len(scores))):
                clips = torch.from_numpy(pictures[:, None]).to(device)
                label = torch.from_numpy(labels[frames.sample[rows]].astype(np.int64)).to(device)
                for few in torch.arange(len(rows), device=device).split(config.batch_size):
                    pixels = clip_prep(clips[few], mean=subject.mean, std=subject.std)[0]
                    p = model(pixels).float().softmax(1)
                    both = torch.stack([p.gather(1, label[few, None])[:, 0], p.amax(1)], 1)
                    scores[rows[few.cpu().numpy()]] = both.cpu().numpy()
                progress.advance(len(rows))
    return scores

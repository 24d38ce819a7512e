"""``unstill still-bank``: the stills of StillMix (arXiv 2211.12883), frames that a picture classifier is surest about.

    1. train a picture network on single frames          unstill train ... (models/frame_net.py)
    2. score every frame by its largest probability, and keep the upper part, quantiles tau to 1
    3. take 1024 of these at random

Without a reference network all frames are kept: the random bank. A .csv next to the bank has every frame's scores.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ...kernels import clip_prep
from ...pipeline.atomic_files import atomic_path
from ...pipeline.errors import InputError
from ...pipeline.loading.clips import Clips
from ...pipeline.loading.device import resolve_device
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.sampler import ClipConfig, ViewConfig
from ...pipeline.progress import Progress
from ..evaluation.subject import load_subject
from .config import StillBankConfig


def build_still_bank(config: StillBankConfig) -> Path:
    """Score, choose, and write the bank; returns its path.

    Raises:
        InputError: the dataset or the reference cannot be used, or they have different classes.
    """
    scores = None if config.reference is None else _scores(config, config.reference)
    with _frames(config, config.size) as loader:
        rows = np.arange(len(loader.index) * config.frames)
        kept = rows if scores is None else most_certain(scores[:, 1], config.tau)
        rng = np.random.default_rng(config.seed)
        chosen = np.sort(rng.choice(kept, min(config.stills, len(kept)), replace=False))
        stills = [clips.frames[mask, 0].cpu() for clips, mask in _picked(loader, chosen)]
        keys = loader.index.keys()
    config.out.parent.mkdir(parents=True, exist_ok=True)
    if scores is not None:
        with open(config.out.with_suffix(".csv"), "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("key", "view", "p_class", "p_max"))
            for row, (p_class, p_max) in enumerate(scores.tolist()):
                writer.writerow((keys[row // config.frames], row % config.frames, f"{p_class:.6f}", f"{p_max:.6f}"))
    with atomic_path(config.out) as partial:
        save_file({"stills": torch.cat(stills).permute(0, 3, 1, 2).contiguous()}, partial)
    return config.out


def most_certain(p_max: np.ndarray, tau: float) -> np.ndarray:
    """Rows, ascending, whose score is in the upper part: without the ``tau`` N lowest."""
    order = np.argsort(p_max, kind="stable")
    return np.sort(order[int(tau * len(order)) :])


def _frames(config: StillBankConfig, size: int) -> ClipLoader:
    return ClipLoader(
        config.data,
        clip=ClipConfig(frames=1, stride=1, size=size),
        batch_size=config.batch_size,
        views=ViewConfig(temporal=config.frames, squeeze=config.squeeze),
        device=resolve_device(config.device),
    )


def _picked(loader: ClipLoader, chosen: np.ndarray) -> Iterator[tuple[Clips, np.ndarray]]:
    with Progress("collecting stills", len(chosen), "stills") as progress:
        for clips in loader:
            mask = np.isin(clips.position.cpu().numpy(), chosen)
            if mask.any():
                yield clips, mask
                progress.advance(int(mask.sum()))


def _scores(config: StillBankConfig, reference: Path) -> np.ndarray:
    """float32 (frames, 2): probability of the video's class, and the largest one."""
    subject = load_subject(reference, trust_model_code=config.trust_model_code)
    if subject.clip.frames != 1:
        raise InputError(
            f"{reference}: sees clips of {subject.clip.frames} frames; train the reference with --clip.frames 1"
        )
    model = subject.model.to(resolve_device(config.device))
    with _frames(config, subject.clip.size) as loader, torch.inference_mode():
        if tuple(loader.index.classes) != subject.classes:
            raise InputError(f"{reference}: was trained on other classes than {config.data} has")
        scores = np.zeros((len(loader.index) * config.frames, 2), np.float32)
        with Progress("scoring", len(scores), "frames") as progress:
            for clips in loader:
                pixels = clip_prep(clips.frames, mean=subject.mean, std=subject.std)[0]
                p = model(pixels).float().softmax(1)
                both = torch.stack([p.gather(1, clips.label[:, None])[:, 0], p.amax(1)], 1)
                scores[clips.position.cpu().numpy()] = both.cpu().numpy()
                progress.advance(len(both))
    return scores

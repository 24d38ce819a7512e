"""The loader for those who have a trainer already: batches for ``torch.utils.data.DataLoader``.

    data = ClipDataset("data/mine/train", clip=ClipConfig(), augment=AugmentConfig(), batch_size=16)
    loader = DataLoader(data, batch_size=None)  # batches are made, and prefetched, by the dataset
    for epoch in range(3):
        for batch in loader:
            ...

Lightning, accelerate and plain loops take that ``DataLoader``.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import InputError
from .clips import Clips
from .loader import ClipLoader
from .loader_config import LoaderConfig
from .sampler import AugmentConfig, ClipConfig, ViewConfig

Batch = dict[str, Any]


class ClipDataset(IterableDataset):
    """Batches of clips, an epoch at a time; the order is that of ``ClipLoader`` with the same seed.

    Training: an epoch is ``samples * augment.repeats // (batch_size * world_size)`` batches, and each pass over the
    dataset is the rest of the epoch that has begun, so passes follow each other without a gap. What does not fill a
    batch comes first in the next epoch. Evaluation: each pass is every view of every sample.

    Processes: each has a dataset of its own, which delivers that rank's share of every global batch. Do not let another
    tool share it out once more: with accelerate on several processes leave it out of ``prepare`` (clips are on
    ``device`` already). Worker processes of a ``DataLoader`` are refused, for the loader has threads of its own.

    Args:
        dataset: folder made by ``unstill convert``, or the address of one.
        clip: shape of a clip.
        batch_size: clips in a batch of one process.
        augment: training: random clips. Give this or ``views``.
        views: evaluation.
        device: "cpu", "cuda" or "cuda:N"; where the clips are delivered.
        seed: of order and draws.
        start_step: batches that this process has already trained on, to continue a run.
        rank, world_size: by default those of ``torch.distributed``, or of the environment (``RANK``, ``WORLD_SIZE``).
        config: threads and queue lengths.
        prepare: called with every ``Clips`` ahead of time; what it returns is ``batch["prepared"]``. The frames are
            then left out.

    Each batch is a dictionary: ``frames`` uint8 (B, T, size, size, 3) or ``prepared``; ``label``, ``sample``,
    ``position``, ``start_frame``, ``static_index`` int64 (B,); ``flip`` bool (B,), still to be applied; ``draws``
    float32 (B, 8). Frames may be kept: on a GPU they are copied out of the decoder's memory.

    Raises:
        InputError: as ``ClipLoader``; fewer samples than a global batch; read in a worker process.
    """

    def __init__(
        self,
        dataset: str | Path,
        *,
        clip: ClipConfig,
        batch_size: int,
        augment: AugmentConfig | None = None,
        views: ViewConfig | None = None,
        device: str | torch.device = "cuda",
        seed: int = 0,
        start_step: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        config: LoaderConfig | None = None,
        prepare: Callable[[Clips], Any] | None = None,
    ):
        found = _ranks()
        self._rank, self._world = found[0] if rank is None else rank, found[1] if world_size is None else world_size
        self._train, self._prepare, self._step = augment is not None, prepare, start_step
        self._make = lambda step: ClipLoader(
            dataset,
            clip=clip,
            batch_size=batch_size * self._world,
            augment=augment,
            views=views,
            device=device,
            seed=seed,
            start_step=step,
            rank=self._rank,
            world_size=self._world,
            config=config,
            prepare=prepare,
        )
        with self._make(0) as probe:  # what is wrong is said now, not in the first step
            clips = probe.clips_per_epoch
            self._length = clips // (batch_size * self._world) if self._train else len(probe)
        if self._length < 1:
            raise InputError(
                f"{dataset}: {clips} clips are fewer than a batch of {batch_size} on each of {self._world} processes"
            )
        self._loader: ClipLoader | None = None

    def __len__(self) -> int:
        """Batches of one epoch in one process."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise InputError("ClipDataset: it has threads of its own; give DataLoader num_workers=0")
        if self._train:
            return self._epoch()
        return self._evaluation()

    def state_dict(self) -> dict[str, int]:
        """How many batches have been handed out; what reads ahead of its loop must give ``start_step`` instead."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the batches that ``state_dict`` counted."""
        self.close()
        self._step = int(state["step"])

    def close(self) -> None:
        """Stop the threads of the loader; the next pass starts new ones."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def _epoch(self) -> Iterator[Batch]:
        for _ in range(self._length - self._step % self._length):
            if self._loader is None:
                self._loader = self._make(self._step)
            batch = self._batch(next(self._loader))
            self._step += 1  # before it is handed over: whoever has a batch has a state that counts it
            yield batch

    def _evaluation(self) -> Iterator[Batch]:
        with self._make(0) as loader:
            for clips in loader:
                yield self._batch(clips)

    def _batch(self, clips: Clips) -> Batch:
        names = ("label", "sample", "position", "start_frame", "static_index", "flip", "draws")
        if self._prepare is not None:
            seen = {"prepared": clips.prepared}
        else:
            seen = {"frames": clips.frames if clips.frames.device.type == "cpu" else clips.frames.clone()}
        return seen | {name: getattr(clips, name) for name in names} | clips.per_sample


def _ranks() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

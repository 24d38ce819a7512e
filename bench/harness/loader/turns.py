"""Paths that take turns on one core, and the chain of the loader as one of them."""

import gc
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from ....pipeline.loading.bad_clips import BadClips
from ....pipeline.loading.clip_stream import ClipStream
from ....pipeline.loading.gop_reader import GopReader, shards_in
from ....pipeline.loading.sampler import ClipConfig, ClipRequests, TrainSampler, frame_numbers, step_positions
from ....pipeline.progress import Progress
from ....pipeline.shards.index import SampleIndex


def alternate(
    paths: Mapping[str, Callable[[np.ndarray], Iterable | float]], rounds: int, clips: int
) -> dict[str, list[float]]:
    """Clips per CPU-second of every path in every round; round r gives all paths the same clips.

    A path gives batches, or the CPU-seconds that it took by its own account, without what it prepared.
    """
    rates: dict[str, list[float]] = {name: [] for name in paths}
    with Progress("loader paths", rounds * len(paths), "measurements") as progress:
        for turn in range(-1, rounds):
            at = np.arange(max(turn, 0) * clips, (max(turn, 0) + 1) * clips)
            for name, path in paths.items():
                if turn < 0:
                    _spent(path, at[:2], name)  # imports, first pipeline, page cache
                    continue
                gc.collect()
                rates[name].append(clips / _spent(path, at, name))
                progress.advance(note=name)
    return rates


def _spent(path: Callable[[np.ndarray], Iterable | float], positions: np.ndarray, name: str) -> float:
    """CPU-seconds of the clips at some positions."""
    begin = time.process_time()
    found = path(positions)
    if isinstance(found, (int, float)):
        return found
    delivered = drain(found)
    assert delivered == len(positions), f"{name} delivered {delivered} of {len(positions)} clips"
    return time.process_time() - begin


def drain(batches: Iterable) -> int:
    """Clips that came."""
    return sum(len(batch) for batch in batches)


def through_dali(
    index: SampleIndex,
    root: Path,
    reader_type: type[GopReader],
    sampler,
    positions: np.ndarray,
    batch: int = 8,
    device: str = "cpu",
    threads: int = 1,
) -> Generator[torch.Tensor, None, None]:
    """uint8 batches from the loader's own chain, with either reader."""
    reader = reader_type(index, shards_in(root, index))
    stream = ClipStream(
        index,
        reader,
        sampler,
        sampler.clip,
        BadClips(index, 0.0),
        device=torch.device(device),
        batch_size=batch,
        decode_threads=threads,
        pipelines=1,
        depth=2,
        read_threads=1,
        read_ahead=2,
        known_good=None,
    )
    try:
        for decoded in stream.batches(positions[n : n + batch] for n in range(0, len(positions), batch)):
            yield decoded.clips
    finally:
        stream.close()
        reader.close()


class StartingNear:
    """A sampler whose clips start within one GOP after a given frame, whole picture."""

    def __init__(self, index: SampleIndex, clip: ClipConfig, first: int, step: int = 1):
        self.clip, self._first, self._samples, self._step = clip, first, len(index), step
        self._gop, self._side = int(index.gop[0]), int(index.height[0])

    def draw(self, positions: np.ndarray) -> ClipRequests:
        n, zero = len(positions), np.zeros(len(positions), np.int64)
        return ClipRequests(
            position=positions,
            sample=positions % self._samples,
            start_frame=self._first + positions * self._step % self._gop,
            stride=zero + self.clip.stride,
            top=zero,
            left=zero,
            height=zero + self._side,
            width=zero + self._side,
            flip=zero > 0,
            static_index=zero,
            draws=np.zeros((n, 8), np.float32),
        )


def starts(index: SampleIndex, clip: ClipConfig) -> list[int]:
    """Up to five first frames of GOPs, from the start of the videos to the last one a clip can start in."""
    gop = int(index.gop[0])
    last = (int(index.frames[0]) - (clip.frames - 1) * clip.stride - gop) // gop * gop
    return list(dict.fromkeys(round(last * part / 4 / gop) * gop for part in range(5)))


def reading_rate(index: SampleIndex, root: Path, sampler: TrainSampler, clips: int) -> float:
    """Clips per CPU-second of choosing clips and fetching and checking their bytes, nothing decoded."""
    reader = GopReader(index, shards_in(root, index))
    frames = np.asarray(index.frames, np.int64)
    begin = time.process_time()
    for step in range(clips // 32):
        r = sampler.draw(step_positions(step, 32))
        numbers = frame_numbers(sampler.clip, r.start_frame, r.stride, frames[r.sample])
        for sample, wanted in zip(r.sample.tolist(), numbers, strict=True):
            reader.clip(sample, wanted)
    rate = clips // 32 * 32 / (time.process_time() - begin)
    reader.close()
    return rate

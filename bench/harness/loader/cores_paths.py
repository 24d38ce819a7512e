"""Clips of H.264 per CPU-second on the processor: our decoder, its peers on the same files, and bare decoding."""

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ....pipeline.loading.bad_clips import BadClips
from ....pipeline.loading.clip_stream import ClipStream
from ....pipeline.loading.frame_decoder import CORES_CODECS, KeptDecoders, decoded_frames, decoder_parameters
from ....pipeline.loading.gop_reader import ClipFile, GopReader, shards_in
from ....pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler, frame_numbers
from ....pipeline.shards.index import CODECS, SampleIndex
from .peers import (
    DECODERS,
    PeerDataset,
    decode_torchcodec,
    peer_batches,
    torchcodec_slices,
    unavailable,
    webdataset_batches,
)

AUGMENT = AugmentConfig(starts="even")  # the same clips of every dataset, layered or not
BATCH = 32  # the trainer's default
_AROUND = 4  # batches before those that count, and after them; as many as are on their way


@dataclass(frozen=True)
class Shards:
    """One dataset and the clips that are taken of it."""

    root: Path
    clip: ClipConfig

    @property
    def index(self) -> SampleIndex:
        return SampleIndex.load(self.root)

    def sampler(self) -> TrainSampler:
        """Starts at even frames, random regions."""
        return TrainSampler(self.index, self.clip, AUGMENT, seed=0)

    def slices(self, positions: np.ndarray) -> list[tuple[int, ClipFile, tuple[int, int, int, int]]]:
        """(sample, slice, region) of the clips at some positions."""
        index, r = self.index, self.sampler().draw(positions)
        reader = GopReader(index, shards_in(self.root, index))
        frames = np.asarray(index.frames, np.int64)[r.sample]
        numbers = frame_numbers(self.clip, r.start_frame, r.stride, frames)
        regions = zip(r.top.tolist(), r.left.tolist(), r.height.tolist(), r.width.tolist(), strict=True)
        found = [
            (sample, reader.clip(sample, wanted), region)
            for sample, wanted, region in zip(r.sample.tolist(), numbers, regions, strict=True)
        ]
        reader.close()
        return found


def ours(shards: Shards, positions: np.ndarray, sampler=None) -> Generator[torch.Tensor, None, None]:
    """The loader's own chain with one thread that decodes."""
    index = shards.index
    reader = GopReader(index, shards_in(shards.root, index))
    stream = ClipStream(
        index,
        reader,
        sampler or shards.sampler(),
        shards.clip,
        BadClips(index, 0.0),
        device=torch.device("cpu"),
        batch_size=BATCH,
        decode_threads=1,
        pipelines=1,
        depth=2,
        read_threads=1,
        read_ahead=2,
        known_good=None,
        decoder="cores",
    )
    try:
        for decoded in stream.batches(positions[n : n + BATCH] for n in range(0, len(positions), BATCH)):
            yield decoded.clips
    finally:
        stream.close()
        reader.close()


def under_way(shards: Shards, positions: np.ndarray) -> float:
    """CPU seconds of ``ours`` for whole batches at some positions, in the middle of a run.

    What starts with it, threads, the index and memory for three batches, is not the price of a clip: 40 ms. Other clips
    come before and after, so that as much is on its way at the end as at the beginning.
    """
    before = int(positions.max()) + 1 + np.arange(_AROUND * BATCH)
    batches = ours(shards, np.concatenate([before, positions, before + len(before)]))
    for _ in range(_AROUND):
        next(batches)
    begin = time.process_time()
    for _ in range(len(positions) // BATCH):
        next(batches)
    spent = time.process_time() - begin
    batches.close()
    return spent


def bare(shards: Shards, positions: np.ndarray) -> float:
    """CPU seconds of decoding the needed frames alone; slices and packets are ready, nothing is converted."""
    index, kept = shards.index, KeptDecoders(shards.clip.size)
    codecs, slices = np.asarray(index.codec), shards.slices(positions)
    begin = time.process_time()
    for sample, clip, _ in slices:
        assert clip.table is not None
        context = kept.context(CORES_CODECS[CODECS[codecs[sample]]], decoder_parameters(clip.table.track.description))
        last = int(clip.frames.max())
        for frame in decoded_frames(context, clip.mp4, clip.table):
            if frame.pts == last:
                break
    return time.process_time() - begin


def decoded_and_converted(shards: Shards, positions: np.ndarray) -> float:
    """CPU seconds of the same with every wanted frame cropped, scaled and turned to RGB, on one thread."""
    index, kept = shards.index, KeptDecoders(shards.clip.size)
    codecs, slices = np.asarray(index.codec), shards.slices(positions)
    out = np.empty((shards.clip.frames, shards.clip.size, shards.clip.size, 3), np.uint8)
    begin = time.process_time()
    for sample, clip, region in slices:
        assert clip.table is not None
        picture, name = (int(index.width[sample]), int(index.height[sample])), CORES_CODECS[CODECS[codecs[sample]]]
        kept.clip(name, clip.mp4, clip.table, clip.frames, picture, region, out)
    return time.process_time() - begin


def decoded_per_delivered(shards: Shards, positions: np.ndarray) -> float:
    """Frames decoded for every frame delivered."""
    slices = shards.slices(positions)
    return sum(len(clip.table.sizes) for _, clip, _ in slices if clip.table) / (len(slices) * shards.clip.frames)


def peers(shards: Shards) -> dict[str, Callable[[np.ndarray], Iterable]]:
    """Other loaders on the same files."""
    sampler, found = shards.sampler(), {}
    for name, decode in DECODERS.items():
        if unavailable(decode) is None:
            found[name] = lambda at, d=decode: peer_batches(PeerDataset(shards.root, sampler, at, d), BATCH, workers=0)
    decode = DECODERS["PyAV + DataLoader"]
    found["webdataset + PyAV"] = lambda at: webdataset_batches(PeerDataset(shards.root, sampler, at, decode), BATCH)
    return found


def torchcodec_on_slices(shards: Shards) -> Callable[[np.ndarray], Iterable] | None:
    """torchcodec fed our slices, crop and resize by torchvision: what the choice of PyAV was measured against."""
    if unavailable(decode_torchcodec) is not None:
        return None
    return lambda at: torchcodec_slices(shards.slices(at), shards.clip.size)

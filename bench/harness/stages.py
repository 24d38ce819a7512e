"""Each stage of the pipeline alone, on the clips of one run: clips a second, and what a clip asks of the machine.

    read -> decode -> copy -> clip_prep -> step

The code of every stage is the one that trains; what it is fed comes from memory, so that nothing before it can slow it.
"""

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...pipeline.errors import InputError
from ...pipeline.loading.clips import Clips, ClipSource
from ...pipeline.loading.cpu_threads import loader_threads
from ...pipeline.loading.decoders import DecoderMaker
from ...pipeline.loading.encoded_batch import EncodedBatch
from ...pipeline.loading.gop_reader import BadClip, GopReader, shards_in
from ...pipeline.loading.sampler import ClipRequests, TrainSampler, frame_numbers, step_positions
from ...pipeline.shards.dataset_info import DatasetInfo
from ...pipeline.shards.index import SampleIndex
from ...trainer.build import build, open_loader
from ...trainer.config import TrainConfig
from ...trainer.distributed import Ranks
from ...trainer.inputs.prepare import Prepare
from ...trainer.models.network import head_of
from ...trainer.monitoring.flops import step_flops
from .bottleneck import Stage
from .ceilings import Ceiling, repeated
from .nvdec import missing_library

_CHUNK = 16  # clips of a reading task, as in the loader
_READ = 8  # batches of encoded clips that are read and decoded over and over
_DECODED = 64 << 20  # bytes of decoded frames, at most, of each video that the decoder's limit is measured on
_WARM_UP = 3  # steps: the first compiles, cuDNN then tries its algorithms


class RunStages:
    """The stages of one run; ``read`` comes first, because it fetches what the others need.

    Args:
        config: the run; its dataset is opened.
        ranks: the device.
        seconds: how long each stage is measured.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks, seconds: float):
        self._config, self._ranks, self._seconds = config, ranks, seconds
        self._device, self._gpu = ranks.device, ranks.device.type == "cuda"
        threads = loader_threads(config.loader, self._device, config.batch_size // ranks.world_size)
        self.read_threads, self.decode_threads, self._pipelines = threads.read, threads.decode, threads.pipelines
        self.index = SampleIndex.load(config.data)
        self.shards = [Path(config.data) / name for name in self.index.shard_names]
        self._reader = GopReader(self.index, shards_in(Path(config.data), self.index))
        self._sampler = TrainSampler(self.index, config.clip, config.augment, config.seed)
        self._encoded: list[EncodedBatch] = []
        self.bytes_per_clip = self.decoded_per_clip = 0.0
        self._core_seconds: dict[str, float] = {}  # CPU time of a clip

    def close(self) -> None:
        """Close the shards."""
        self._reader.close()

    def read(self, ceiling: Ceiling) -> Stage:
        """Choosing clips, fetching the bytes of their GOPs from the page cache, and checking them."""
        batches = [self._sampler.draw(step_positions(step, self._config.batch_size)) for step in range(_READ)]

        def fetch(step: int) -> list[EncodedBatch]:
            # drawn again, for choosing is a part of it
            requests = self._sampler.draw(batches[step % _READ].position)
            rows = range(0, len(requests), _CHUNK)
            return list(pool.map(lambda n: self._read(requests.take(slice(n, n + _CHUNK))), rows))

        with ThreadPoolExecutor(self.read_threads) as pool:
            self._encoded = [
                EncodedBatch.join(fetch(step)) for step in range(_READ)
            ]  # from now on they are in the page cache
            clips, begin = 0, time.perf_counter()
            for step in itertools.count():
                clips += sum(map(len, fetch(step)))
                if time.perf_counter() - begin > self._seconds:
                    break
            elapsed = time.perf_counter() - begin
        count = sum(map(len, self._encoded))
        self.bytes_per_clip = sum(len(data) for batch in self._encoded for data in batch.encoded) / count
        self.decoded_per_clip = sum(int((batch.frames.max(1) + 1).sum()) for batch in self._encoded) / count
        how = f"bytes of the touched GOPs, fetched and checked by {self.read_threads} thread(s)"
        return self._stage("read", clips / elapsed, self.bytes_per_clip, ceiling, "the page cache", how)

    def disk(self, ceiling: Ceiling) -> Stage:
        """The same bytes from the disk; computed, because what was read once is in the page cache."""
        if ceiling.rate is None:
            return Stage(name="disk", delivered=None, work=self.bytes_per_clip, unit="bytes", how=ceiling.how)
        rate = ceiling.rate / self.bytes_per_clip
        how = "computed: the disk's rate over the bytes of a clip; counts only until the dataset is in memory"
        return self._stage("disk", rate, self.bytes_per_clip, ceiling, "the disk", how)

    def decode(self, ceiling: Ceiling) -> Stage:
        """Decoding, cutting and resizing of clips whose bytes are in memory."""
        if self._gpu and (reason := missing_library()):
            return Stage(name="decode", delivered=None, work=self.decoded_per_clip, unit="frames", how=reason)
        config = self._config
        size, depth = config.clip.size, config.loader.depth
        maker = DecoderMaker("dali", self.index, size, self._device, self.decode_threads, depth=depth)
        decoders = [maker.new(config.batch_size) for _ in range(self._pipelines)]
        ahead, turns = config.loader.depth * len(decoders), itertools.cycle(decoders)
        batches, waiting = itertools.cycle(self._encoded), []
        stream = torch.cuda.Stream(self._device) if self._gpu else None
        clips, begin = 0, None
        for number in itertools.count():
            while len(waiting) < ahead:
                decoder = next(turns)
                decoder.submit(next(batches))
                waiting.append(decoder)
            delivered = len(waiting.pop(0).collect(stream))
            if begin is not None:
                clips += delivered
                if time.perf_counter() - begin > self._seconds:
                    break
            elif number == ahead:  # the queues are full
                begin = time.perf_counter()
        if self._gpu:
            torch.cuda.synchronize(self._device)
        assert begin is not None, "the loop ends after its clock has started"
        elapsed = time.perf_counter() - begin
        per_delivered = self.decoded_per_clip / config.clip.frames
        how = (
            f"{self._pipelines} pipeline(s) of {self.decode_threads} threads; {per_delivered:.2f} frames "
            f"decoded for each of the {config.clip.frames} delivered"
        )
        return self._stage("decode", clips / elapsed, self.decoded_per_clip, ceiling, "sequential decoding", how)

    def copy(self, ceiling: Ceiling) -> Stage:
        """The encoded clips of a batch from pinned memory to the device: decoded frames never cross the link."""
        if ceiling.rate is None:
            return Stage(name="copy", delivered=None, work=self.bytes_per_clip, unit="bytes", how=ceiling.how)
        batch = self._config.batch_size
        host = torch.empty(max(1, round(batch * self.bytes_per_clip)), dtype=torch.uint8, pin_memory=True)
        target = torch.empty_like(host, device=self._device)
        took = repeated(lambda: target.copy_(host, non_blocking=True), self._device, self._seconds)
        raw = self._pixels() * 3
        how = f"encoded bytes of a batch; {raw / 1e6:,.1f} MB a clip would cross the link if the host decoded"
        return self._stage("copy", batch / took, self.bytes_per_clip, ceiling, "the link", how)

    def clip_prep(self, ceiling: Ceiling) -> Stage:
        """Frames -> normalised motion and static clips."""
        prepare, clips = Prepare(self._config), self._clips()
        took = repeated(lambda: prepare(replace(clips, per_sample={})), self._device, self._seconds)
        moved = prep_bytes(self._config)
        how = f"read {self._pixels() * 3 / 1e6:,.2f} MB of frames a clip, write the clips"
        return self._stage("clip_prep", len(clips) / took, moved, ceiling, "the memory", how)

    def together(self) -> Stage:
        """All stages before the step at once, as the loader runs them, without training."""
        if self._gpu and (reason := missing_library()):
            return Stage(name="together", delivered=None, how=reason)
        with open_loader(replace(self._config, replay=0), self._ranks, 0, 1 << 40) as loader:
            batches = iter(loader)
            for _ in range(self._config.loader.ready + self._config.loader.depth * self._pipelines + 2):
                next(batches)  # what was prepared while the first was awaited
            clips, begin, spent = 0, time.perf_counter(), time.process_time()
            while not clips or time.perf_counter() - begin < self._seconds:
                clips += len(next(batches))
            if self._gpu:
                torch.cuda.synchronize(self._device)
            elapsed = time.perf_counter() - begin
            self._core_seconds["the loader"] = (time.process_time() - spent) / clips
        return Stage(name="together", delivered=clips / elapsed, how="the loader, without training")

    def step(self, ceiling: Ceiling) -> Stage:
        """Forward, backward and update on prepared clips."""
        config = self._config
        data = DatasetInfo.read(config.data)
        state, step = build(config, data, self._ranks, steps=1 << 20)
        try:
            method_parts = {"head": head_of(state.model), "method_module": state.method_module}
            shape = config.clip.frames, config.clip.size
            flops, how = step_flops(state.model, config.method, *shape, **method_parts, tables=step.tables), ""
        except Exception as error:  # an operation without a meta form
            flops, how = None, f"; its operations cannot be counted ({type(error).__name__})"
        clips = self._clips()
        if not config.step.fused_boundary:
            clips.prepared = Prepare(config)(clips)

        def steps() -> None:  # every kind of step: some methods penalise every few
            nonlocal count
            for _ in range(period):
                take: Any = step  # the fused boundary takes the next batch as well
                take((clips, clips) if config.step.fused_boundary else clips)
                count += len(clips)

        count, period = 0, config.method.period
        for _ in range(_WARM_UP if period == 1 else 1):
            steps()
        count, spent = 0, time.process_time()
        took = repeated(steps, self._device, self._seconds) / period
        self._core_seconds["the step"] = (time.process_time() - spent) / count
        how = f"batch of {len(clips)}, {config.step.precision}, compile {config.step.compile}{how}"
        return self._stage("step", len(clips) / took, flops, ceiling, "matrix products", how)

    def cores(self) -> Stage:
        """A CPU's cores with the loader and the step on them at once; computed, after ``together`` and ``step``."""
        cores, total = len(os.sched_getaffinity(0)), sum(self._core_seconds.values())
        shares = ", ".join(f"{name} {1e3 * each:.3g} ms" for name, each in self._core_seconds.items())
        how = f"computed: {cores} core(s) over the CPU time of a clip: {shares}"
        return Stage(name="cores", delivered=cores / total, how=how)

    def videos(self, count: int = 32) -> list[np.ndarray]:
        """The first frames of some videos as MP4 files, for the decoder's limit."""
        samples = np.unique(np.linspace(0, len(self.index) - 1, count).astype(np.int64))
        column = lambda name: np.asarray(getattr(self.index, name), np.int64)[samples]  # noqa: E731
        fitting = np.maximum(_DECODED // (3 * column("height") * column("width")), 1)
        spans = self._reader.spans(samples, np.zeros_like(samples), np.minimum(column("frames"), fitting) - 1)
        return [self._reader.read(int(sample), *span) for sample, span in zip(samples, spans.tolist(), strict=True)]

    def _stage(self, name: str, delivered: float, work: float | None, limit: Ceiling, resource: str, how: str) -> Stage:
        return Stage(
            name=name,
            delivered=delivered,
            work=work,
            unit=limit.unit,
            ceiling=limit.rate,
            resource=resource,
            how=how,
        )

    def _pixels(self) -> int:
        return self._config.clip.frames * self._config.clip.size**2

    def _read(self, requests: ClipRequests) -> EncodedBatch:
        sample = requests.sample
        video = np.asarray(self.index.frames, np.int64)[sample]
        frames = frame_numbers(self._config.clip, requests.start_frame, requests.stride, video)
        try:
            clips = [self._reader.clip(row, wanted) for row, wanted in zip(sample.tolist(), frames, strict=True)]
        except BadClip as problem:
            raise InputError(f"{self._config.data}: {problem}; see `unstill verify`") from None
        numbers, read = (
            np.stack([clip.frames for clip in clips]),
            np.array([clip.bytes_read for clip in clips], np.int64),
        )
        return EncodedBatch(requests, [clip.mp4 for clip in clips], numbers, np.zeros(len(requests), np.int64), read)

    def _clips(self) -> Clips:
        """A batch of noise: neither preparing nor training takes longer for what is to be seen."""
        config, device = self._config, self._device
        batch, clip = config.batch_size, config.clip
        requests = self._sampler.draw(step_positions(0, batch))
        to = lambda array: torch.from_numpy(np.array(array)).to(device)  # noqa: E731
        return Clips(
            frames=torch.randint(
                0, 256, (batch, clip.frames, clip.size, clip.size, 3), dtype=torch.uint8, device=device
            ),
            label=to(np.asarray(self.index.label, np.int64)[requests.sample]),
            sample=to(requests.sample),
            position=to(requests.position),
            start_frame=to(requests.start_frame),
            static_index=to(requests.static_index),
            flip=to(requests.flip),
            draws=to(requests.draws),
            source=ClipSource(
                requests.sample, requests.start_frame, np.tile(np.array([0, 0, 1, 1], np.float32), (batch, 1))
            ),
        )


def prep_bytes(config: TrainConfig) -> int:
    """Bytes that preparing one clip must read and write: uint8 frames in, motion clip and static frame out."""
    values = 3 * config.clip.frames * config.clip.size**2
    item = {"bf16": 2, "fp32": 4, "fp64": 8}[config.step.precision]
    static = 0 if config.method.static == "none" else values // config.clip.frames  # one frame
    shifted = 2 * values if config.inputs.transform is not None else 0  # the frames once more, in and out
    return values + shifted + item * (values + static)

"""Shards -> uint8 clips on the device, prefetched; training order is a pure function of (seed, step).

    sampler -> reader threads (bytes of the touched GOPs) -> decoder (decode, cut, resize) -> [prepare] -> queue

    with ClipLoader("data/train", clip=ClipConfig(), augment=AugmentConfig(), batch_size=64, seed=0) as loader:
        for clips in loader:
            ...

One background thread runs the whole chain, so the training loop only takes finished batches. A clip that is damaged is
replaced by another one, the same on every machine, because whether it is damaged is a fact of the data.
"""

import atexit
import logging
import queue
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..shards.cache import ShardCache, remote_address
from ..shards.index import SampleIndex
from ..shards.index_check import check_index, check_manifest, check_shards
from ..shards.verified import is_verified, manifest_digest
from .bad_clips import BadClips
from .clip_stream import ClipStream, DecodedBatch
from .clips import Clips, ClipSource, FrameTimes, LoaderStats
from .codec_support import choose_decoder
from .cpu_threads import default_core_threads, loader_threads
from .cuda_waits import sleep_while_waiting
from .device import resolve_device
from .gop_reader import GopReader, RangeReader, shards_in
from .in_flight import InFlight, read_left_out
from .isolated_decoder import Isolation
from .loader_config import LoaderConfig
from .precautions import Precautions
from .sampler import (
    AugmentConfig,
    ClipConfig,
    EvalSampler,
    TrainSampler,
    ViewConfig,
    clip_strides,
    frame_numbers,
    step_positions,
)

_log = logging.getLogger(__name__)
_running: "weakref.WeakSet[ClipLoader]" = weakref.WeakSet()
# of loaders that have ended, for the next ones: PyTorch keeps freed memory for the stream that it was allocated on
_idle_streams: dict[torch.device, deque[torch.cuda.Stream]] = defaultdict(deque)


@atexit.register
def _close_all() -> None:
    """A thread that is still inside DALI when the interpreter goes down can crash it."""
    for loader in list(_running):
        loader.close()


class ClipLoader:
    """Iterates over batches of clips of one dataset; give ``augment`` to train, or ``views`` to evaluate.

    Args:
        dataset: folder made by ``unstill convert``, or the address of one (``s3://...``).
        clip: shape of a clip.
        batch_size: clips in a global batch; every rank gets an equal part of it.
        augment: training: endless random clips.
        views: evaluation: every sample exactly once per view, in row order, the last batch short.
        device: "cpu", "cuda", "cuda:N", or "auto": cuda where there is one.
        seed: of the order and of every random draw.
        start_step: first step to deliver; continuing a run is starting at its next step.
        steps: number of steps to deliver; endless (training) or all (evaluation) by default.
        rank, world_size: this process among those that share the global batch.
        config: threads and queue lengths.
        bad_clips: CSV file for the names of damaged clips, or None.
        run: folder for the record of clips that are being decoded, which names them after a crash; None: no record.
        prepare: called with every ``Clips`` ahead of time, on a GPU in the side stream; gives ``Clips.prepared``.

    Raises:
        InputError: the dataset, the codec or an option cannot be used; while iterating, too many samples are damaged.
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
        steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        config: LoaderConfig | None = None,
        bad_clips: Path | None = None,
        run: Path | None = None,
        prepare: Callable[[Clips], Any] | None = None,
    ):
        if (augment is None) == (views is None):
            raise InputError("ClipLoader: give either augment (to train) or views (to evaluate)")
        if not 0 <= rank < world_size:
            raise InputError(f"ClipLoader: rank {rank} of {world_size} processes does not exist")
        if batch_size < 1 or batch_size % world_size:
            raise InputError(
                f"batch_size = {batch_size}: expected a multiple of the {world_size} processes that share it"
            )
        if start_step < 0 or (steps is not None and steps < 0):
            raise InputError(f"start_step = {start_step}, steps = {steps}: expected integers from 0")
        self.device = clip_device(device)
        self.clip, self.config = clip, config or LoaderConfig()
        self.train = augment is not None
        self.index, self._reader, verified = open_dataset(dataset, self.config)
        if not verified and rank == 0:
            _say_once(
                logging.WARNING,
                f"{dataset}: you have not converted or verified it on this machine; if it came from somebody else, run "
                "`unstill verify` on it before you train on it",
            )
        self._precautions = _precautions(self.config, self.index, dataset, run, rank, world_size)
        self.decoder = choose_decoder(
            self.index, self._reader, self.device, dataset, self.config.decoder, self._precautions
        )
        if rank == 0:
            _say_once(logging.INFO, f"{dataset}: decoder {self.decoder.name}, {self.decoder.reason}")
        self._label = np.asarray(self.index.label, dtype=np.int64)
        self._height, self._width = (np.asarray(side, np.int64) for side in (self.index.height, self.index.width))
        if augment is not None:
            self._sampler = TrainSampler(self.index, clip, augment, seed)
            self._last_step = None
        elif views is not None:
            self._sampler = EvalSampler(self.index, clip, views, seed)
            self._share = range(self._sampler.size * rank // world_size, self._sampler.size * (rank + 1) // world_size)
            self._last_step = -(-len(self._share) * world_size // batch_size)
        if steps is not None:
            last = start_step + steps
            self._last_step = last if self._last_step is None else min(last, self._last_step)
        self._start_step, self._batch, self._rank, self._world = start_step, batch_size, rank, world_size

        limit = self.config.max_bad_fraction
        limit = (0.001 if self.train else 0.0) if limit is None else limit
        self.bad = BadClips(self.index, limit, bad_clips, self._precautions.left_out)
        self.stats = LoaderStats()
        self._prepare = prepare
        self._ready: queue.Queue = queue.Queue(self.config.ready)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._asked_until: float | None = None
        self._in_use: deque = deque()  # GPU: batches that the training stream may still read, each with its event
        self._last_clips: Clips | None = None
        self._stream: torch.cuda.Stream | None = None

    def __len__(self) -> int:
        """Steps that this loader delivers in all; TypeError when it is endless."""
        if self._last_step is None:
            raise TypeError("an endless ClipLoader has no length; give steps")
        return max(0, self._last_step - self._start_step)

    @property
    def clips_per_epoch(self) -> int:
        """Clips of one pass: ``augment.repeats`` of every sample, or all views of all samples."""
        return self._sampler.clips_per_epoch if isinstance(self._sampler, TrainSampler) else self._sampler.size

    def __iter__(self) -> Iterator[Clips]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="clip-loader", daemon=True)
            self._thread.start()
            _running.add(self)
        return self

    def __next__(self) -> Clips:
        iter(self)
        begin = time.perf_counter()
        item = self._ready.get()
        now = time.perf_counter()
        if isinstance(item, BaseException):
            self._ready.put(item)  # asked again, it answers the same
            raise item
        clips, event, decoded = item
        if self._asked_until is not None:
            self.stats.running_s += now - self._asked_until
            self.stats.wait_s += now - begin
        self._asked_until = now
        self._count(decoded)
        if event is not None:
            self._hand_over(clips, event)
        return clips

    def frame_times(self, clips: Clips) -> FrameTimes:
        """Numbers and times of the frames of a batch of this loader, those that a short video repeats included."""
        source = clips.source
        if source is None:
            raise InputError("frame_times: these clips do not say where they were cut; give a batch of this loader")
        frames = np.asarray(self.index.frames, np.int64)[source.sample]
        number = frame_numbers(self.clip, source.start_frame, clip_strides(self.clip, frames), frames)
        rate = np.asarray(self.index.fps_milli, np.float64)[source.sample] / 1000
        return FrameTimes(number, number / rate[:, None])

    def close(self) -> None:
        """Stop the threads, free the pipelines, close the files. Batches already delivered stay valid."""
        self._stop.set()
        if self._thread is not None:
            while self._thread.is_alive():
                try:  # the thread may be waiting for room
                    self._ready.get_nowait()
                except queue.Empty:
                    self._thread.join(timeout=0.01)
        _running.discard(self)
        self._reader.close()
        if self._precautions.in_flight is not None:
            self._precautions.in_flight.close()
        self._in_use.clear()
        self._last_clips = None

    def __enter__(self) -> "ClipLoader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _positions(self) -> Iterator[np.ndarray]:
        step = self._start_step
        while self._last_step is None or step < self._last_step:
            if self.train:
                yield step_positions(step, self._batch, self._rank, self._world)
            else:
                part = self._batch // self._world
                yield np.asarray(self._share[step * part : (step + 1) * part], dtype=np.int64)
            step += 1

    def _decoded(self, stream: ClipStream) -> Iterator[DecodedBatch]:
        """What is handed over, in order; called in the background thread, on a GPU under its stream."""
        return stream.batches(self._positions())

    def _run(self) -> None:
        """The background thread: everything up to the queue of finished batches."""
        stream = None
        try:
            gpu = self.device.type == "cuda"
            self._stream = _side_stream(self.device) if gpu else None
            config, batch = self.config, self._batch // self._world
            threads = loader_threads(config, self.device, batch)
            stream = ClipStream(
                self.index,
                self._reader,
                self._sampler,
                self.clip,
                self.bad,
                device=self.device,
                batch_size=batch,
                decode_threads=threads.decode,
                pipelines=threads.pipelines,
                depth=config.depth,
                read_threads=config.remote_requests if isinstance(self._reader, RangeReader) else threads.read,
                read_ahead=config.read_ahead,
                known_good=self.decoder.known_good,
                decoder=self.decoder.name,
                core_threads=config.core_threads or default_core_threads(self.device),
                precautions=self._precautions,
                stream=self._stream,
            )
            with torch.cuda.stream(self._stream):  # does nothing for None
                for decoded in self._decoded(stream):
                    clips = self._clips(decoded)
                    if self._prepare is not None:
                        clips.prepared = self._prepare(clips)
                    event = self._stream.record_event() if self._stream is not None else None
                    self.stats.rebuilds = stream.rebuilds
                    if not self._offer((clips, event, decoded)):
                        return
            self._offer(StopIteration())
        except BaseException as error:  # whatever it is, it belongs to the training loop
            self._offer(error)
        finally:
            if stream is not None:
                stream.close()
            if self._stream is not None:
                _idle_streams[self.device].append(self._stream)

    def _offer(self, item) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _clips(self, decoded: DecodedBatch) -> Clips:
        r = decoded.requests
        whole = np.stack([self._label[r.sample], r.sample, r.position, r.start_frame, r.static_index])
        whole, flip, draws = (self._upload(array) for array in (whole, r.flip, r.draws))
        label, sample, position, start_frame, static_index = whole.unbind(0)
        size = np.stack([self._height[r.sample], self._width[r.sample]] * 2, 1)
        region = (np.stack([r.top, r.left, r.height, r.width], 1) / size).astype(np.float32)
        source = ClipSource(r.sample, r.start_frame, region)
        return Clips(decoded.clips, label, sample, position, start_frame, static_index, flip, draws, source=source)

    def _upload(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._stream is None else tensor.pin_memory().to(self.device, non_blocking=True)

    def _hand_over(self, clips: Clips, event: "torch.cuda.Event") -> None:
        """Order the training stream after the side stream, and keep memory alive until it is done with it."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for tensor in _tensors((clips.frames, clips.label, clips.flip, clips.draws, clips.per_sample, clips.prepared)):
            tensor.record_stream(current)  # does nothing for DALI's memory
        # DALI knows nothing of the training stream: the frames of the previous batch are held until all that has been
        # launched so far is done
        if self._last_clips is not None:
            self._in_use.append((self._last_clips.frames, current.record_event()))
        while self._in_use and self._in_use[0][1].query():
            self._in_use.popleft()
        self._last_clips = clips

    def _count(self, decoded: DecodedBatch) -> None:
        stats = self.stats
        stats.batches += 1
        stats.clips += len(decoded.requests)
        stats.bytes_read += decoded.bytes_read
        stats.frames_decoded += decoded.frames_decoded
        stats.frames_delivered += len(decoded.requests) * self.clip.frames
        stats.bad_clips = self.bad.clips


_said: set[str] = set()


def _say_once(level: int, text: str) -> None:
    """Log a line once in a process: a run opens its validation set at every checkpoint."""
    if text not in _said:
        _said.add(text)
        _log.log(level, "%s", text)


def open_dataset(dataset: str | Path, config: LoaderConfig) -> tuple[SampleIndex, GopReader, bool]:
    """The index, its reader, and whether this user has seen all of the dataset decode."""
    address = remote_address(dataset)
    if address is None:
        root = Path(dataset)
        check_manifest(root)
        index = SampleIndex.load(root)
        check_index(index, dataset)
        check_shards(index, root)
        return index, GopReader(index, shards_in(root, index)), is_verified(manifest_digest(root))
    cache = ShardCache(address, config.cache.expanduser(), int(config.cache_gb * 1e9))
    index = SampleIndex.load(cache.root)
    check_index(index, dataset)
    check_shards(index, address, cache.sizes())
    if config.remote == "ranges":
        return index, RangeReader(index, cache.ranges()), is_verified(cache.digest)
    reader = GopReader(index, lambda shard: cache.open(index.shard_names[shard]))
    return index, reader, is_verified(cache.digest)


def _precautions(
    config: LoaderConfig, index: SampleIndex, dataset: str | Path, run: Path | None, rank: int, world_size: int
) -> Precautions:
    left_out = frozenset() if config.leave_out is None else read_left_out(config.leave_out, index)
    if config.leave_out is not None and rank == 0:
        _log.warning("%s: %d samples are left out (--loader.leave-out %s)", dataset, len(left_out), config.leave_out)
    isolation = Isolation() if config.isolate else None
    # decoding elsewhere cannot end this process
    record = InFlight(run, index, rank, world_size) if run is not None and isolation is None else None
    return Precautions(isolation, record, left_out)


def clip_device(device: str | torch.device) -> torch.device:
    """The device that is meant, with its number; InputError where there is none."""
    device = torch.device(resolve_device("auto") if device == "auto" else device)
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device = {device}: clips are decoded for cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device = {device}: no CUDA device found; give --device cpu")
    if device.type == "cuda":
        first = device.index or 0
        if not torch.cuda.is_initialized():
            sleep_while_waiting(first)
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else first)
    return device


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    try:
        return _idle_streams[device].popleft()
    except IndexError:
        return torch.cuda.Stream(device)


def _tensors(value) -> Iterator[torch.Tensor]:
    """All tensors on a GPU in nested tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        if value.is_cuda:
            yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))

"""Decoding on the processor with libavcodec, one clip per thread at a time (``frame_decoder.py``).

Measured beside torchcodec and others on the same files in `bench/results/loader-cpu.json`. Frames agree with DALI's up
to rounding, and to where colours clip: DALI clips before it resizes (`tests/pipeline/loading/test_cores_decoder.py`
states the levels).
"""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import av.error
import numpy as np
import torch

from ..shards.index import CODECS, SampleIndex
from .batch_memory import BatchMemory
from .decode import picture_sizes
from .encoded_batch import EncodedBatch
from .frame_decoder import CORES_CODECS, CannotDecode, KeptDecoders, load_compiled
from .isolated_decoder import FrameDecoder
from .precautions import Precautions


class CoresDecoder:
    """``Decoder`` on CPU threads, for clips in the processor's memory or, through pinned memory, on a GPU.

    Args:
        index: the dataset; says the codec and the size of each sample.
        size: side of the delivered frames, pixels.
        device: where the clips go.
        threads: clips that are decoded at a time.
        precautions: with isolation each thread decodes in a process of its own.
    """

    def __init__(
        self,
        index: SampleIndex,
        size: int,
        device: torch.device,
        threads: int,
        precautions: Precautions | None = None,
    ):
        self._device, self._size, self._threads = device, size, threads
        self._isolation = precautions.isolation if precautions else None
        self._in_flight = precautions.in_flight if precautions and not self._isolation else None
        if self._isolation is None:
            load_compiled()
        self._made: list[FrameDecoder] = []
        self._memory = BatchMemory()
        self._codec, self._pictures = np.asarray(index.codec), picture_sizes(index)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="clip-decoder")
        self._own = threading.local()
        self._queue: deque[tuple[torch.Tensor, list[Future]]] = deque()

    def submit(self, batch: EncodedBatch) -> None:
        """Queue a batch; its clips are decoded as threads become free."""
        shape = (*batch.frames.shape, self._size, self._size, 3)
        if self._device.type == "cuda":
            clips = torch.empty(shape, dtype=torch.uint8, pin_memory=True)  # PyTorch keeps this kind by itself
        else:
            clips = self._memory.lend(*shape)
        out = clips.numpy()
        # one task a thread, not one a clip: a future that is waited for wakes another thread: 0.2 ms of CPU time
        rows = deque(range(len(batch)))
        tasks = [self._pool.submit(self._decode_rows, batch, rows, out) for _ in range(min(self._threads, len(batch)))]
        self._queue.append((clips, tasks))

    def collect(self, stream: "torch.cuda.Stream | None" = None) -> torch.Tensor:
        """The clips of the oldest batch, see ``Decoder``."""
        clips, tasks = self._queue.popleft()
        errors = [error for task in tasks for error in task.result()]  # waits for all of them
        if errors:
            raise errors[0]
        if self._device.type == "cpu":
            return clips
        with torch.cuda.stream(stream):
            return clips.to(self._device, non_blocking=True)

    def close(self) -> None:
        """Stop the threads, and the processes of theirs."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for decoder in self._made:
            decoder.close()
        self._made.clear()
        self._memory.close()

    def _new_decoder(self) -> FrameDecoder:
        decoder = KeptDecoders(self._size) if self._isolation is None else self._isolation.decoder(self._size)
        self._made.append(decoder)
        return decoder

    def _decode_rows(self, batch: EncodedBatch, rows: deque[int], out: np.ndarray) -> list[Exception]:
        """Decode clips until none is left; what went wrong."""
        errors: list[Exception] = []
        while rows:
            try:
                row = rows.popleft()
            except IndexError:  # another thread took the last one
                break
            try:
                self._decode(batch, row, out)
            except Exception as error:
                errors.append(error)
        return errors

    def _decode(self, batch: EncodedBatch, row: int, out: np.ndarray) -> None:
        if not hasattr(self._own, "decoder"):
            self._own.decoder = self._new_decoder()
        r = batch.requests
        sample = int(r.sample[row])
        number, (height, width) = int(self._codec[sample]), self._pictures[sample].tolist()
        top, left = (min(max(int(v[row]), 0), most - 1) for v, most in ((r.top, height), (r.left, width)))
        region = (top, left, min(int(r.height[row]), height - top), min(int(r.width[row]), width - left))
        name = CORES_CODECS.get(CODECS[number] if number < len(CODECS) else "")
        if name is None:
            raise CannotDecode(f"codec {number} of the index has no decoder in libavcodec")
        slot = self._in_flight.begin(sample) if self._in_flight is not None else None
        try:
            self._own.decoder.clip(
                name, batch.encoded[row], batch.tables[row], batch.frames[row], (width, height), region, out[row]
            )
        except (av.error.FFmpegError, ValueError) as error:
            self._own.decoder.forget()
            raise CannotDecode(" ".join(str(error).split()) or type(error).__name__) from error
        finally:
            if self._in_flight is not None:
                self._in_flight.end(slot)

"""Two decoders that share every batch by their measured speed, so that neither waits for the other.

    batch of n clips  ->  first k to one, the others to the other  ->  put together in order

Which decoder a clip goes to depends on how fast they happen to be, so pixels repeat only within what the two differ by:
at most 2 levels on average over a clip (`tests/pipeline/loading/test_cores_decoder.py`). Order, regions, labels and
random numbers do not depend on it.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

import torch

from .encoded_batch import Decoder, EncodedBatch

_LEARNING = 0.3  # weight of the newest batch in the measured time of a clip


class SharedDecoder:
    """``Decoder`` that hands each batch to two others.

    Args:
        decoders: two of the same device and size, each with the number of batches that it may be given ahead.
        stream: on a GPU, the stream on which results are ready.
    """

    def __init__(self, decoders: Sequence[tuple[Decoder, int]], stream: "torch.cuda.Stream | None" = None):
        self._workers = [_Worker(decoder, depth, stream) for decoder, depth in decoders]
        self._sizes: deque[list[int]] = deque()

    def _first_share(self, clips: int) -> int:
        """How many of the next clips the first decoder gets, so that both finish all they have at the same time."""
        first, second = self._workers
        a, b = (first.seconds, second.seconds) if first.seconds and second.seconds else (1.0, 1.0)
        share = ((clips + second.waiting) * b - first.waiting * a) / (a + b)
        return min(max(round(share), 0), clips)

    def submit(self, batch: EncodedBatch) -> None:
        """Queue a batch."""
        n = len(batch)
        first = self._first_share(n)
        rows = list(range(n))
        self._sizes.append([first, n - first])
        for worker, part in zip(self._workers, (rows[:first], rows[first:]), strict=True):
            if part:
                worker.submit(batch.take(part))

    def collect(self, stream: "torch.cuda.Stream | None" = None) -> torch.Tensor:
        """The clips of the oldest batch, see ``Decoder``; a copy, unless one decoder had all of them."""
        sizes = self._sizes.popleft()
        found = [worker.collect() for worker, size in zip(self._workers, sizes, strict=True) if size]
        for part in found:
            if isinstance(part, BaseException):
                raise part
        parts = [part for part in found if isinstance(part, torch.Tensor)]
        if len(parts) == 1:
            return parts[0]
        with torch.cuda.stream(stream):
            return torch.cat(parts)

    def close(self) -> None:
        """Stop the threads and the decoders."""
        for worker in self._workers:
            worker.close()


class _Worker:
    """A thread that waits for one decoder, so that the time at which it finishes is known.

    Attributes:
        seconds: of a clip, as measured of late; None before the first.
        waiting: clips given to the decoder and not finished.
    """

    def __init__(self, decoder: Decoder, depth: int, stream: "torch.cuda.Stream | None"):
        self._decoder, self._depth, self._stream = decoder, depth, stream
        self._given: queue.Queue[EncodedBatch | None] = queue.Queue()
        self._done: queue.Queue[torch.Tensor | BaseException] = queue.Queue()
        self.seconds: float | None = None
        self._submitted = self._finished = 0
        self._thread = threading.Thread(target=self._run, name="shared-decoder", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._submitted - self._finished

    def submit(self, batch: EncodedBatch) -> None:
        self._submitted += len(batch)
        self._given.put(batch)

    def collect(self) -> torch.Tensor | BaseException:
        return self._done.get()

    def close(self) -> None:
        self._given.put(None)
        self._thread.join()
        self._decoder.close()

    def _run(self) -> None:
        working: deque[tuple[int, float]] = deque()  # clips of a batch, and when it was given
        finished = 0.0
        while True:
            while len(working) < self._depth:
                try:
                    batch = self._given.get(block=not working)
                except queue.Empty:
                    break
                if batch is None:
                    return
                working.append((len(batch), time.perf_counter()))
                self._decoder.submit(batch)
            clips, given = working.popleft()
            try:
                with torch.cuda.stream(self._stream):
                    result = self._decoder.collect(self._stream)
            except BaseException as error:  # belongs to whoever asks for this batch
                result = error
            now = time.perf_counter()
            each = (now - max(finished, given)) / clips
            finished = now
            self._finished += clips
            self.seconds = each if self.seconds is None else self.seconds + _LEARNING * (each - self.seconds)
            self._done.put(result)

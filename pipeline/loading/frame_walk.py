"""Chosen frames of many videos in order, each GOP read and decoded once, in memory that no video's length changes.

    with FrameWalk(folder, size=112) as walk:
        for video in walk.videos(range(len(walk.index)), frames=every_frame, regions=centre):
            for numbers, frames in video.parts:        # frames: uint8 (n, R, 112, 112, 3), n of at most about 64
                ...

Threads decode a few parts ahead, across the ends of videos. Frames come from libavcodec, cut and scaled as the loader's
on the processor (``frame_decoder.py``): equal to those of its clips, whatever window they are put into later.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av.error
import numpy as np

from ..shards.index import CODECS
from .cpu_threads import default_core_threads
from .frame_decoder import CORES_CODECS, CannotDecode, KeptDecoders, SliceTable, decoded_frames, decoder_parameters
from .gop_reader import BadClip, ClipFile
from .isolated_decoder import ChildDecoders, Isolation
from .loader import open_dataset
from .loader_config import LoaderConfig

_AT_ONCE = 64  # most frames of a part, unless a GOP is longer
_PART_BYTES = 1 << 25  # of a part's frames, where that is more than one GOP

Region = tuple[int, int, int, int]  # top, left, height, width, pixels
Part = tuple[np.ndarray, np.ndarray]


class BadVideo(Exception):
    """A video that is damaged or cannot be decoded; the message says from which frame on, and why."""


@dataclass(frozen=True)
class WalkedVideo:
    """One video on the way.

    Attributes:
        sample: row of the index.
        parts: its frames in order: numbers int64 (n,), frames uint8 (n, R, size, size, 3). Raises ``BadVideo``.
    """

    sample: int
    parts: Iterator[Part]


class FrameWalk:
    """Walks through the videos of a dataset.

    Args:
        dataset: folder made by ``unstill convert``, or the address of one.
        size: side of the delivered frames, pixels.
        threads: that decode; 0: as many as the loader would take.
        device: where the frames are used, for the default number of threads.
        config: of the loader; how a remote dataset is read, and whether each thread decodes in a process of its own.

    Attributes:
        index: of the dataset.

    Raises:
        InputError: no dataset there, or its index contradicts itself.
    """

    def __init__(
        self,
        dataset: str | Path,
        size: int,
        *,
        threads: int = 0,
        device: str = "cpu",
        config: LoaderConfig | None = None,
    ):
        config = config or LoaderConfig()
        self.index, self._reader, _ = open_dataset(dataset, config)
        self._isolation = Isolation() if config.isolate else None
        self._children: list[ChildDecoders] = []
        self._size, self._threads = size, threads or default_core_threads(device)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="frame-walk")
        self._own = threading.local()

    def videos(
        self,
        samples: Iterable[int],
        frames: Callable[[int], np.ndarray],
        regions: Callable[[int], Sequence[Region]],
    ) -> Iterator[WalkedVideo]:
        """Walk through some videos, in the order given; what is left of a video when the next is asked for is skipped.

        Args:
            samples: rows of the index.
            frames: row -> int64 (n,), numbers of the frames wanted, ascending, each once.
            regions: row -> what is cut out of each of these frames.
        """
        jobs = self._jobs(samples, frames, regions)
        ahead: deque[tuple[int, Future[Part]]] = deque()

        def fill() -> None:
            # one more than the threads: a thread that has finished finds the next part waiting
            while len(ahead) <= self._threads and (job := next(jobs, None)) is not None:
                ahead.append(job)

        def parts(sample: int) -> Iterator[Part]:
            while ahead and ahead[0][0] == sample:
                part = ahead.popleft()[1]
                fill()
                yield part.result()

        try:
            fill()
            while ahead:
                sample = ahead[0][0]
                yield WalkedVideo(sample, parts(sample))
                while ahead and ahead[0][0] == sample:
                    ahead.popleft()[1].cancel()
                    fill()
        finally:
            for _, part in ahead:
                part.cancel()

    def close(self) -> None:
        """Stop the threads and close the shards."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.close()
        self._children.clear()
        self._reader.close()

    def __enter__(self) -> "FrameWalk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _jobs(
        self,
        samples: Iterable[int],
        frames: Callable[[int], np.ndarray],
        regions: Callable[[int], Sequence[Region]],
    ) -> Iterator[tuple[int, "Future[Part]"]]:
        """Parts that decode, started when asked for."""
        for sample in samples:
            places = tuple(regions(sample))
            most = max(1, min(_AT_ONCE, _PART_BYTES // (len(places) * self._size**2 * 3)))
            for numbers in split_by_gops(frames(sample), int(self.index.gop[sample]), most):
                yield sample, self._pool.submit(self._decode, sample, numbers, places)

    def _decode(self, sample: int, numbers: np.ndarray, regions: Sequence[Region]) -> Part:
        if not hasattr(self._own, "kept"):
            self._own.kept = KeptDecoders(self._size)
            if self._isolation is not None:
                self._own.child = self._isolation.decoder(self._size)
                self._children.append(self._own.child)
        decoded = self._decoded if self._isolation is None else self._decoded_elsewhere
        try:
            return numbers, decoded(sample, numbers, regions)
        except (BadClip, CannotDecode, av.error.FFmpegError, ValueError) as error:
            self._own.kept.forget()
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadVideo(f"frames {numbers[0]} to {numbers[-1]}: {reason}") from error

    def _slice(self, sample: int, numbers: np.ndarray) -> tuple[str, ClipFile, SliceTable, tuple[int, int]]:
        """Decoder, bytes, where frames lie in them, and size of the pictures."""
        code = int(self.index.codec[sample])
        codec = CORES_CODECS.get(CODECS[code] if code < len(CODECS) else "")
        if codec is None:
            raise ValueError(f"codec {code} of the index has no decoder in libavcodec")
        file = self._reader.clip(sample, numbers)
        assert file.table is not None, "a clip that was cut has a table"
        return codec, file, file.table, (int(self.index.width[sample]), int(self.index.height[sample]))

    def _decoded_elsewhere(self, sample: int, numbers: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
        """The same in a process of its own, once for each region."""
        codec, file, table, picture = self._slice(sample, numbers)
        out = np.empty((len(numbers), len(regions), self._size, self._size, 3), np.uint8)
        for place, region in enumerate(regions):
            own = np.empty((len(numbers), self._size, self._size, 3), np.uint8)
            self._own.child.clip(codec, file.mp4, table, file.frames, picture, region, own)
            out[:, place] = own
        return out

    def _decoded(self, sample: int, numbers: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
        kept: KeptDecoders = self._own.kept
        codec, file, table, picture = self._slice(sample, numbers)
        out = np.empty((len(numbers), len(regions), self._size, self._size, 3), np.uint8)
        row = {number: n for n, number in enumerate(file.frames.tolist())}
        context = kept.context(codec, decoder_parameters(table.track.description))
        for frame in decoded_frames(context, file.mp4, table):
            n = row.pop(-1 if frame.pts is None else frame.pts, None)
            if n is None:
                continue
            if frame.is_corrupt or (frame.width, frame.height) != picture:
                raise ValueError("a frame is damaged, or has another size than the index says")
            for place, region in enumerate(regions):
                kept.scaled(frame, region, out[n, place])
        if row:
            raise ValueError(f"{len(row)} frames do not come out of the decoder")
        return out


def split_by_gops(numbers: np.ndarray, gop: int, most: int) -> list[np.ndarray]:
    """Frame numbers in parts that share no GOP; a part has neighbouring GOPs only, of at most ``most`` frames in all.

    Args:
        numbers: int64 (n,), ascending.
        gop: frames of a GOP. A GOP of more than ``most`` frames is a part of its own.
        most: see above; frames that are decoded but not wanted count.
    """
    if not len(numbers):
        return []
    touched, begins = np.unique(numbers // gop, return_index=True)
    run = np.concatenate([[0], np.cumsum(np.diff(touched) > 1)])  # a gap would be decoded, too
    first = touched[np.searchsorted(run, run)]
    part = (touched - first) // max(1, most // gop)
    cut = (np.diff(run) > 0) | (np.diff(part) > 0)
    return np.split(numbers, begins[1:][cut])

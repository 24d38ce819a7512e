"""The DALI graph: encoded slices -> frames -> region cut and resized in one operator -> uint8 (T, h, w, 3).

The same graph runs on a GPU (``mixed``: NVDEC decodes) and on a CPU. Two properties of ``decoders.video`` (DALI 2.4)
shape it:

- It sorts the frame numbers it is asked for and decodes forward once; but to deliver a frame twice it starts again from
  the first byte, once per repeat. So each frame is asked for once; repeats (short videos) are copies made afterwards.
- ``exec_dynamic=True`` (the executor of 2.x) loses only the batch in which a clip fails to decode.

Where opening a file is slow, on a GPU, ``GroupedClipDecoder`` (``grouped_decoder.py``) gives DALI several clips a file.
"""

import re
from collections import deque
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, math
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType, DALIInterpType

from ..shards.index import SampleIndex
from .encoded_batch import EncodedBatch

_FILE = [DALIDataType.UINT8, DALIDataType.INT32]  # its bytes, and the frames to deliver


class ClipDecoder:
    """One DALI pipeline with a queue: ``submit`` batches, ``collect`` them in the same order.

    Args:
        batch_size: largest number of clips in a batch.
        size: side of the delivered frames, pixels.
        device: "cpu", or "cuda" / "cuda:1".
        threads: DALI worker threads; on a GPU also the number of NVDEC sessions in use at a time.
        depth: batches that DALI works on ahead.
        pictures: int64 (N, 2), height and width of every sample by its index; None: not compared.
    """

    def __init__(
        self,
        batch_size: int,
        size: int,
        device: torch.device,
        threads: int,
        depth: int,
        pictures: np.ndarray | None = None,
    ):
        self.device, self.depth, self._size, self._threads, self._pictures = device, depth, size, threads, pictures
        self._waiting: deque[EncodedBatch] = deque()  # submitted, not yet handed to DALI
        self._fed: deque = deque()  # what `_arrays` keeps of each batch for `_clips`
        self._started = False
        gpu = device.type == "cuda"
        self._pipeline = Pipeline(
            batch_size=batch_size,
            num_threads=threads,
            device_id=(device.index or 0) if gpu else None,
            prefetch_queue_depth=depth,
            exec_dynamic=True,
        )
        with self._pipeline:
            self._pipeline.set_outputs(*self._graph())
        self._pipeline.build()

    def submit(self, batch: EncodedBatch) -> None:
        """Queue a batch; at most ``depth`` may be queued at a time."""
        self._waiting.append(batch)
        if self._started:
            self._pipeline.schedule_run()
        elif len(self._waiting) == self.depth:
            self._start()

    def collect(self, stream: "torch.cuda.Stream | None" = None) -> torch.Tensor:
        """The clips of the oldest batch.

        Args:
            stream: on a GPU, the stream on which the result is ready and on which its memory is released.

        Returns:
            uint8 (n, T, size, size, 3) on the device; DALI's own memory, alive as long as the tensor.

        Raises:
            RuntimeError: DALI could not decode a clip of this batch, or a picture is not of its sample's size; later
                batches are not affected.
        """
        if not self._started:
            self._start()
        fed = self._fed[0] if self._fed else None
        try:
            outputs = self._pipeline.share_outputs(cuda_stream=stream)
        finally:
            if self._fed:
                self._fed.popleft()
        self._pipeline.release_outputs()
        return self._clips(outputs, fed)

    def close(self) -> None:
        """Nothing runs that must be stopped: the pipeline goes with the object."""

    def _start(self) -> None:
        # the first call makes DALI take `depth` batches at once, or as many as there are
        self._started = True
        self._pipeline.schedule_run()

    def _feed(self):
        if not self._waiting:
            raise StopIteration
        arrays, kept = self._arrays(self._waiting.popleft())
        self._fed.append(kept)
        return arrays

    def _video(self, kinds: list[DALIDataType]) -> tuple[Any, ...]:
        """The decoded frames of each file, and the arrays of ``_arrays`` after its first two; of one axis each."""
        encoded, frames, *more = fn.external_source(
            source=self._feed,
            num_outputs=2 + len(kinds),
            batch=True,
            dtype=[*_FILE, *kinds],
            ndim=[1] * (2 + len(kinds)),
        )
        video = fn.decoders.video(
            encoded,
            device="mixed" if self.device.type == "cuda" else "cpu",
            frames=frames,
            pad_mode="none",  # a video with fewer frames than the index says is an error, not a black tail
            affine=False,  # pinned, the threads of all ranks on a machine would crowd on the same cores
        )
        return video, *more

    def _graph(self) -> tuple[Any, ...]:
        video, start, end = self._video([DALIDataType.FLOAT, DALIDataType.FLOAT])
        picture = video.shape(dtype=DALIDataType.INT64)[1:3]
        # a region outside the picture, from a damaged index, would make resize read outside its buffer
        side = fn.cast(picture, dtype=DALIDataType.FLOAT)
        clip = fn.resize(
            video,
            size=[self._size, self._size],
            roi_start=math.clamp(start, 0.0, side),
            roi_end=math.clamp(end, 0.0, side),
            interp_type=DALIInterpType.INTERP_LINEAR,
            antialias=True,
        )
        return clip, picture

    def _arrays(self, batch: EncodedBatch) -> tuple[tuple, Any]:
        """What DALI gets of a batch; and what ``_clips`` does."""
        frames, repeats = _without_repeats(batch.frames)
        r = batch.requests
        start = np.stack([r.top, r.left], axis=1).astype(np.float32)
        end = np.stack([r.top + r.height, r.left + r.width], axis=1).astype(np.float32)
        return (batch.encoded, frames, start, end), (repeats, self._expected(r.sample))

    def _clips(self, outputs: tuple, fed: Any) -> torch.Tensor:
        """The clips, from DALI's outputs; ``fed`` is None where DALI failed before it took the batch."""
        clips, pictures = outputs
        repeats, expected = fed or (None, None)
        check_pictures(np.stack([np.asarray(picture) for picture in pictures]), expected)
        if repeats is None:
            return torch.from_dlpack(clips.as_tensor())
        return torch.stack(
            [
                torch.from_dlpack(clips[row])[torch.from_numpy(repeats[row]).to(self.device, non_blocking=True)]
                for row in range(len(clips))
            ]
        )

    def _expected(self, sample: np.ndarray) -> np.ndarray | None:
        return None if self._pictures is None else self._pictures[sample]


def check_pictures(found: np.ndarray, expected: np.ndarray | None) -> None:
    """Compare sizes of pictures, int64 (n, 2), height and width; RuntimeError names the first that is wrong."""
    if expected is not None and not np.array_equal(found, expected):
        row = int((found != expected).any(1).argmax())
        (height, width), (tall, wide) = found[row].tolist(), expected[row].tolist()
        raise RuntimeError(f"its pictures are {width}x{height}, the index says {wide}x{tall}")


def picture_sizes(index: SampleIndex) -> np.ndarray:
    """int64 (N, 2): height and width of every sample."""
    return np.stack([np.asarray(index.height, np.int64), np.asarray(index.width, np.int64)], axis=1)


def _without_repeats(frames: np.ndarray) -> tuple[np.ndarray | list[np.ndarray], np.ndarray | None]:
    """Each frame once, int32; and where every clip frame then lies, int64 (n, T), or None when there is no repeat."""
    ordered = np.sort(frames, axis=1)
    if (ordered[:, 1:] != ordered[:, :-1]).all():
        return frames.astype(np.int32), None
    unique = [np.unique(row, return_inverse=True) for row in frames]
    return [values.astype(np.int32) for values, _ in unique], np.stack([inverse for _, inverse in unique])


def decoder_message(error: RuntimeError) -> str:
    """The line of a DALI error that says what went wrong, without the trace of the graph."""
    text = str(error)
    if "encountered:" in text:
        text = text.rsplit("encountered:", 1)[1]
    for end in ("C++ context", "Current pipeline object", "Stacktrace"):
        text = text.split(end, 1)[0]
    text = re.sub(r'Assert on ".*?" failed: | for "memory file"', "", " ".join(text.split()))
    return text or type(error).__name__

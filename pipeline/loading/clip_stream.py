"""From positions to decoded batches, in order, whatever happens to single clips.

    positions -> requests -> bytes (reader threads) -> decoders in turn -> uint8 clips

Every stage runs ahead of the next. A clip whose bytes are damaged is replaced while reading; a batch that fails to
decode is decoded again clip by clip, which finds the bad ones; a pipeline that fails on good clips is rebuilt, and the
batches that were in it are given to the new one.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from ..errors import InputError
from ..shards.index import SampleIndex
from .bad_clips import BadClips
from .codec_support import first_frames
from .decode import decoder_message
from .decoders import DecoderMaker, DecoderName
from .encoded_batch import Decoder, EncodedBatch
from .frame_decoder import SliceTable
from .gop_reader import BadClip, GopReader
from .precautions import Precautions
from .sampler import ClipConfig, ClipRequests, EvalSampler, TrainSampler, frame_numbers

# With 0.1 % of bad samples, so many bad clips in a row at one position are a matter of 1e-48: something else is wrong.
MAX_ATTEMPTS = 16

_log = logging.getLogger(__name__)


@dataclass
class DecodedBatch:
    """Finished clips.

    Attributes:
        requests: n rows; after replacements.
        clips: uint8 (n, T, size, size, 3) on the device.
        bytes_read: bytes of the GOPs that the clips touch.
        frames_decoded: frames from the start of each slice to the last one delivered.
    """

    requests: ClipRequests
    clips: torch.Tensor
    bytes_read: int
    frames_decoded: int


class ClipStream:
    """Turns positions into decoded batches.

    Args:
        index, reader: the dataset.
        sampler: says which clip a position is. An ``EvalSampler`` has no substitutes: bad clips are left out.
        clip: shape of a clip.
        bad: where bad clips are reported.
        device: where to decode.
        batch_size: largest batch.
        decode_threads, pipelines, depth, read_threads, read_ahead: see ``LoaderConfig``.
        known_good: a sample that has been decoded on this device, or None.
        decoder, core_threads: what decodes, and threads of decoding on the processor's cores.
        precautions: against videos that crash a decoder.
        stream: on a GPU, the stream on which results are ready.
    """

    def __init__(
        self,
        index: SampleIndex,
        reader: GopReader,
        sampler: TrainSampler | EvalSampler,
        clip: ClipConfig,
        bad: BadClips,
        *,
        device: torch.device,
        batch_size: int,
        decode_threads: int,
        pipelines: int,
        depth: int,
        read_threads: int,
        read_ahead: int,
        known_good: int | None,
        decoder: DecoderName = "dali",
        core_threads: int = 1,
        precautions: Precautions | None = None,
        stream: "torch.cuda.Stream | None" = None,
    ):
        self.index, self.reader, self.sampler, self.clip, self.bad = index, reader, sampler, clip, bad
        self.device, self._batch_size, self._stream = device, batch_size, stream
        self._depth, self._read_ahead = depth, read_ahead
        precautions = precautions or Precautions()
        self._left_out = precautions.left_out
        self._maker = DecoderMaker(decoder, index, clip.size, device, decode_threads, core_threads, depth, precautions)
        self._known_good = known_good
        self._video_frames = np.asarray(index.frames, dtype=np.int64)
        self._gop = np.asarray(index.gop, dtype=np.int64)
        self._pool = ThreadPoolExecutor(read_threads, thread_name_prefix="clip-reader")
        # threads on the cores take clips of any batch: more than one queue of them would only compete
        self._decoders = [self._new_decoder() for _ in range(pipelines if decoder == "dali" else 1)]
        self.rebuilds = 0

    def batches(self, positions: Iterable[np.ndarray]) -> Iterator[DecodedBatch]:
        """Decoded batches, one for each array of positions, in order; an evaluation leaves out what is bad.

        Raises:
            InputError: more samples are bad than allowed.
            RuntimeError: the decoder fails on clips that it decoded before.
        """
        positions = iter(positions)
        reading: deque[list[Future]] = deque()
        decoding: deque[tuple[EncodedBatch, int]] = deque()
        turn = 0
        while True:
            while len(decoding) < self._depth * len(self._decoders):
                while len(reading) < self._read_ahead and (at := next(positions, None)) is not None:
                    reading.append(self._start_reading(at))
                if not reading:
                    break
                batch = EncodedBatch.join([part.result() for part in reading.popleft()])
                if len(batch) == 0:
                    continue  # an evaluation batch of bad clips only
                self._decoders[turn].submit(batch)
                decoding.append((batch, turn))
                turn = (turn + 1) % len(self._decoders)
            if not decoding:
                return
            batch, which = decoding.popleft()
            try:
                decoded = _finished(batch, self._decoders[which].collect(self._stream))
            except RuntimeError as error:
                decoded = self._rescue(batch, error)
                if decoded is None:
                    decoded = self._rebuild(batch, which, [b for b, w in decoding if w == which], error)
            if len(decoded.requests):
                yield decoded

    def close(self) -> None:
        """Stop the reader threads and free the pipelines."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()
        self._decoders.clear()
        self._maker.close()

    def _new_decoder(self) -> Decoder:
        return self._maker.new(self._batch_size, self._stream)

    def _start_reading(self, positions: np.ndarray) -> list[Future]:
        requests, chunk = self.sampler.draw(positions), self.reader.clips_per_task
        return [
            self._pool.submit(self._read, requests.take(slice(begin, begin + chunk)))
            for begin in range(0, len(requests), chunk)
        ]

    def _read(self, requests: ClipRequests, attempt: int = 0) -> EncodedBatch:
        sample = requests.sample
        frames = frame_numbers(self.clip, requests.start_frame, requests.stride, self._video_frames[sample])
        attempts, read = np.full(len(requests), attempt, np.int64), np.zeros(len(requests), np.int64)
        encoded: list[np.ndarray | None] = []
        tables: list[SliceTable | None] = []
        for row, number in enumerate(sample.tolist()):
            try:
                if number in self._left_out:
                    raise BadClip("left out by --loader.leave-out")
                clip = self.reader.clip(number, frames[row])
            except BadClip as problem:
                substitute = self._replace(requests.take([row]), attempt, str(problem))
                encoded.append(substitute.encoded[0] if substitute else None)
                tables.append(substitute.tables[0] if substitute and substitute.tables else None)
                if substitute:
                    requests.put(row, substitute.requests)
                    frames[row], attempts[row] = substitute.frames[0], substitute.attempts[0]
                    read[row] = substitute.bytes_read[0]
            else:
                encoded.append(clip.mp4)
                tables.append(clip.table)
                frames[row], read[row] = clip.frames, clip.bytes_read
        good = [row for row, data in enumerate(encoded) if data is not None]
        known = [] if any(tables[row] is None for row in good) else cast(list[SliceTable], tables)
        batch = EncodedBatch(requests, cast(list[np.ndarray], encoded), frames, attempts, read, known)
        return batch if len(good) == len(encoded) else batch.take(good)

    def _replace(self, clip: ClipRequests, attempt: int, reason: str) -> EncodedBatch | None:
        """Report a bad clip; return its substitute (which may itself have been replaced), or None in an evaluation."""
        sample, position = int(clip.sample[0]), int(clip.position[0])
        self.bad.report(sample, position, int(clip.start_frame[0]), reason)
        if not isinstance(self.sampler, TrainSampler):
            return None
        if attempt + 1 >= MAX_ATTEMPTS:
            raise InputError(
                f"{MAX_ATTEMPTS} clips in a row were bad at position {position}; run `unstill verify` on the dataset"
            )
        return self._read(self.sampler.draw(clip.position, attempt + 1), attempt + 1)

    def _rescue(self, batch: EncodedBatch, error: RuntimeError) -> DecodedBatch | None:
        """Decode clip by clip, replacing the bad ones; None when no clip is bad, so that the pipeline must be."""
        good: list[tuple[EncodedBatch, torch.Tensor]] = []
        any_bad = False
        for row in range(len(batch)):
            one: EncodedBatch | None = batch.take([row])
            while one is not None:
                try:
                    good.append((one, self._maker.alone(one)))
                    break
                except RuntimeError as failure:
                    any_bad = True
                    self._check_decoder(failure)
                    reason = f"it cannot be decoded: {decoder_message(failure)}"
                    one = self._replace(one.requests, int(one.attempts[0]), reason)
        if not any_bad:
            return None
        if not good:
            return DecodedBatch(batch.requests.take([]), torch.empty(0), 0, 0)
        return _finished(EncodedBatch.join([one for one, _ in good]), torch.cat([clip for _, clip in good]))

    def _check_decoder(self, failure: RuntimeError) -> None:
        if self._known_good is None:
            return
        try:
            self._maker.alone(first_frames(self.index, self.reader, self._known_good))
        except (RuntimeError, BadClip):
            raise RuntimeError(
                f"the decoder on {self.device} fails on clips that it decoded before; start the run again, it goes on "
                f"at its last checkpoint ({decoder_message(failure)})"
            ) from failure

    def _rebuild(
        self, batch: EncodedBatch, which: int, waiting: list[EncodedBatch], error: RuntimeError
    ) -> DecodedBatch:
        _log.warning("a decoder failed on good clips and is rebuilt: %s", decoder_message(error))
        self.rebuilds += 1
        clips = [self._maker.alone(batch.take([row])) for row in range(len(batch))]
        self._decoders[which].close()
        self._decoders[which] = self._new_decoder()
        for other in waiting:
            self._decoders[which].submit(other)
        return _finished(batch, torch.cat(clips))


def _finished(batch: EncodedBatch, clips: torch.Tensor) -> DecodedBatch:
    return DecodedBatch(
        batch.requests, clips, int(batch.bytes_read.sum()), int((batch.frames.max(1) + 1).sum()) if len(batch) else 0
    )

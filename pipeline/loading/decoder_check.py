"""Compares DALI's decoder with libavcodec's, frame by frame, for `unstill verify --device`.

A GPU's decoder may leave a frame out without an error; DALI then delivers what the buffer held before. Training
notices a frame that is missing, but not one that is wrong, so they are looked for beforehand: every frame is read as in
training and decoded, a GOP a file, once by DALI and once by libavcodec on the processor.

The standards fix every bit of a decoded picture, but DALI gives out RGB only, and its conversion enlarges the colour
planes in its own way, so checksums of RGB differ on good frames. Luminance does not depend on how colours are enlarged,
but where they clip. So what is compared are the ``SIDE`` x ``SIDE`` averages of luminance over each picture, within
``LEVELS``. An undecoded frame that equals the right one this closely is no fault.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..progress import Progress
from ..safe_text import printable
from ..shards.index import SampleIndex
from .codec_support import check_codecs
from .cores_decoder import CoresDecoder
from .decode import ClipDecoder, decoder_message, picture_sizes
from .encoded_batch import Decoder, EncodedBatch
from .gop_reader import BadClip, ClipFile, GopReader, shards_in
from .loader import clip_device
from .sampler import ClipRequests

SIDE = 16
"""Averages along a side: in a picture of 256 x 256 pixels each is over one macroblock of H.264."""
LEVELS = 4.0
"""Of 255, by which averages of a good frame may differ. Measured with VP9 and Motion JPEG from 64x96 to 255x341 pixels:
1 on smooth pictures, 3 on random squares of saturated colours. Neighbouring frames of a drifting pattern differ by 10
and more."""
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])  # BT.601, as the converter writes every video
_BATCH = 8


@dataclass(frozen=True)
class FrameFault:
    """One or several frames on which the decoders do not agree.

    Attributes:
        shard: the file, relative to the dataset's folder.
        key: the sample, escaped for printing.
        frames: the first and the last of them.
        problem: what is wrong, one line.
    """

    shard: str
    key: str
    frames: tuple[int, int]
    problem: str

    def __str__(self) -> str:
        first, last = self.frames
        which = f"frame {first}" if first == last else f"frames {first} to {last}"
        return f"{self.shard} {self.key} {which}: {self.problem}"


@dataclass(frozen=True)
class _Gop:
    """One GOP, read: the clip of all its frames."""

    sample: int
    first: int
    clip: ClipFile


def compare_decoders(root: str | os.PathLike, device: str | torch.device, *, threads: int = 0) -> list[FrameFault]:
    """Decode every frame of a dataset with DALI on ``device`` and with libavcodec.

    Args:
        root: the dataset's folder; its bytes are taken to be checked already.
        device: cpu or cuda.
        threads: of each decoder; 0 is one for every core.

    Returns:
        All faults, ordered by shard, key and frame.

    Raises:
        InputError: there is no such device, or DALI does not decode a codec of the dataset on it.
    """
    device, root = clip_device(device), Path(root)
    index, threads = SampleIndex.load(root), threads or len(os.sched_getaffinity(0))
    reader = GopReader(index, shards_in(root, index))
    try:
        check_codecs(index, reader, device, root, "dali")
        dali = ClipDecoder(_BATCH, SIDE, device, threads, 1, picture_sizes(index))
        cores = CoresDecoder(index, SIDE, torch.device("cpu"), threads)
        try:
            found = differing_frames(index, reader, dali, cores)
            return sorted(found, key=lambda fault: (fault.shard, fault.key, fault.frames))
        finally:
            cores.close()
    finally:
        reader.close()


def differing_frames(index: SampleIndex, reader: GopReader, dali: Decoder, cores: Decoder) -> Iterator[FrameFault]:
    """The faults of all samples, in no order, for decoders that deliver ``SIDE`` x ``SIDE`` pixels."""
    waiting: dict[int, list[_Gop]] = {}  # by their number of frames: a batch has one
    with Progress("comparing decoders", len(index), "videos") as progress:
        for sample in range(len(index)):
            for first, frames in _gops(index, sample):
                try:
                    gop = _Gop(sample, first, reader.clip(sample, frames))
                except BadClip as error:
                    yield _fault(index, sample, first, first + len(frames) - 1, str(error))
                    continue
                alike = waiting.setdefault(len(frames), [])
                alike.append(gop)
                if len(alike) == _BATCH:
                    yield from _compare(index, waiting.pop(len(frames)), dali, cores)
            progress.advance()
        for alike in waiting.values():
            yield from _compare(index, alike, dali, cores)


def _gops(index: SampleIndex, sample: int) -> Iterator[tuple[int, np.ndarray]]:
    frames, gop = int(index.frames[sample]), int(index.gop[sample])
    for first in range(0, frames, gop):
        yield first, np.arange(first, min(first + gop, frames))


def _compare(index: SampleIndex, gops: list[_Gop], dali: Decoder, cores: Decoder) -> Iterable[FrameFault]:
    batch, pictures = _batch(index, gops), []
    for name, decoder in (("DALI", dali), ("libavcodec", cores)):
        try:
            decoder.submit(batch)
            pictures.append(decoder.collect().cpu().float() @ _LUMINANCE)
        except RuntimeError as error:
            if len(gops) > 1:  # find out which
                return [fault for gop in gops for fault in _compare(index, [gop], dali, cores)]
            last = gops[0].first + batch.frames.shape[1] - 1
            return [_fault(index, gops[0].sample, gops[0].first, last, f"{name}: {decoder_message(error)}")]
    difference = (pictures[0] - pictures[1]).abs().amax((2, 3))
    found = []
    for row, column in (difference > LEVELS).nonzero().tolist():
        frame, by = gops[row].first + column, float(difference[row, column])
        problem = f"DALI's picture is not libavcodec's: luminance differs by {by:.0f} of 255, at most {LEVELS:.0f}"
        found.append(_fault(index, gops[row].sample, frame, frame, problem))
    return found


def _batch(index: SampleIndex, gops: list[_Gop]) -> EncodedBatch:
    sample = np.array([gop.sample for gop in gops])
    none = np.zeros(len(gops), np.int64)
    requests = ClipRequests(
        position=none,
        sample=sample,
        start_frame=np.array([gop.first for gop in gops]),
        stride=none + 1,
        top=none,
        left=none,
        height=np.asarray(index.height, np.int64)[sample],
        width=np.asarray(index.width, np.int64)[sample],
        flip=none.astype(bool),
        static_index=none,
        draws=np.zeros((len(gops), 8), np.float32),
    )
    clips = [gop.clip for gop in gops]
    tables = [clip.table for clip in clips if clip.table is not None]
    frames, read = np.stack([clip.frames for clip in clips]), np.array([clip.bytes_read for clip in clips])
    return EncodedBatch(requests, [clip.mp4 for clip in clips], frames, none, read, tables)


def _fault(index: SampleIndex, sample: int, first: int, last: int, problem: str) -> FrameFault:
    shard = index.shard_names[int(index.shard[sample])]
    return FrameFault(shard, printable(index.key(sample))[:120], (first, last), printable(problem))

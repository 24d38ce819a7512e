"""Which clips a process is decoding, in a small file that outlives it, so that a run that was killed can name them.

A decoder that runs into a fault of its own takes the process with it, without a word. What it was working on is the
only trace; the order of clips is fixed, so the resumed run would die there again. Marking a clip is one write of 8
bytes to the system's cache, about a microsecond; nothing waits for a disk.

    FOLDER/decoding-rank0.bin     while the process runs; removed when it ends by itself
    FOLDER/clips_in_flight.txt    keys of the clips that were in flight when a process ended without a word
"""

import contextlib
import logging
import os
import re
import zlib
from collections import deque
from pathlib import Path

import numpy as np
import torch

from ..bounded_files import read_bounded
from ..errors import InputError
from ..safe_text import printable
from ..shards.index import SampleIndex
from .encoded_batch import Decoder, EncodedBatch

LIST_NAME = "clips_in_flight.txt"
_SLOTS = 4096  # clips that are named at most
_MAGIC = int.from_bytes(b"inflight", "little")
_HEAD = 3  # numbers before the slots: magic, samples and keys of the index
_SHOWN = 8  # keys in the message

_log = logging.getLogger(__name__)


class InFlight:
    """The record of one process. Threads may use it side by side.

    Args:
        folder: where it lies: the run's.
        index: the dataset.
        rank, world_size: this process among those of the run.

    What processes left behind that ended without a word is named in the log and added to ``clips_in_flight.txt``.
    """

    def __init__(self, folder: Path, index: SampleIndex, rank: int = 0, world_size: int = 1):
        self._path = folder / f"decoding-rank{rank}.bin"
        identity = [_MAGIC, len(index), zlib.crc32(np.ascontiguousarray(index.key_text).data)]
        self._name_earlier(folder, index, identity, rank, world_size)
        self._free = deque(range(_SLOTS))
        self._file: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o644)
            os.pwrite(self._file, np.array([*identity, *[0] * _SLOTS], "<i8").tobytes(), 0)
        except OSError as error:
            _log.warning("%s: cannot be written (%s): clips in flight will not be named", self._path, error.strerror)
            self.close()

    def begin(self, sample: int) -> int | None:
        """Mark a sample as being decoded; returns what ``end`` takes."""
        try:
            slot = self._free.popleft()
        except IndexError:  # more clips than can be named
            return None
        self._write(slot, sample + 1)
        return slot

    def end(self, slot: int | None) -> None:
        """It is decoded, or known to be bad."""
        if slot is not None:
            self._write(slot, 0)
            self._free.append(slot)

    def close(self) -> None:
        """Remove the record: this process ends by itself."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(file)

    def _write(self, slot: int, value: int) -> None:
        file = self._file
        if file is not None:
            with contextlib.suppress(OSError):
                os.pwrite(file, value.to_bytes(8, "little"), 8 * (_HEAD + slot))

    def _name_earlier(self, folder: Path, index: SampleIndex, identity: list[int], rank: int, world_size: int) -> None:
        samples: set[int] = set()
        for path in folder.glob("decoding-rank*.bin"):
            number = re.fullmatch(r"decoding-rank(\d{1,6})\.bin", path.name)
            # each process reads its own before it begins another; the first one also those of ranks that are no more
            if number is None or not (int(number[1]) == rank or (rank == 0 and int(number[1]) >= world_size)):
                continue
            samples |= _left_behind(path, identity)
            if int(number[1]) != rank:
                path.unlink(missing_ok=True)
        if not samples:
            return
        keys = [index.key(sample) for sample in sorted(samples)]
        listed = folder / LIST_NAME
        _append(listed, keys)
        named = ", ".join(printable(key) for key in keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
        _log.warning(
            "the last run here ended without a word, killed by a signal, while %d clips were being decoded: %s. They "
            "are listed in %s; if it ends there again, resume with --loader.leave-out %s to train without them",
            len(keys),
            named,
            listed,
            listed,
        )


class RecordedDecoder:
    """A ``Decoder`` whose batches are marked in the record from ``submit`` to ``collect``."""

    def __init__(self, decoder: Decoder, record: InFlight):
        self._decoder, self._record = decoder, record
        self._slots: deque[list[int | None]] = deque()

    def submit(self, batch: EncodedBatch) -> None:
        """See ``Decoder``."""
        self._slots.append([self._record.begin(sample) for sample in batch.requests.sample.tolist()])
        self._decoder.submit(batch)

    def collect(self, stream: "torch.cuda.Stream | None" = None) -> torch.Tensor:
        """See ``Decoder``."""
        try:
            return self._decoder.collect(stream)
        finally:
            self._end(self._slots.popleft())

    def close(self) -> None:
        """See ``Decoder``."""
        self._decoder.close()
        while self._slots:
            self._end(self._slots.popleft())

    def _end(self, slots: list[int | None]) -> None:
        for slot in slots:
            self._record.end(slot)


def read_left_out(path: Path, index: SampleIndex) -> frozenset[int]:
    """Rows of the samples whose keys are lines of a text file; keys of other datasets are passed over.

    Raises:
        InputError: it cannot be read.
    """
    try:
        keys = set(read_bounded(path, 1 << 30).decode().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"--loader.leave-out {path}: cannot be read ({reason}); expected one key a line") from None
    return frozenset(row for row, key in enumerate(index.keys()) if key in keys)


def _left_behind(path: Path, identity: list[int]) -> set[int]:
    """The samples that a record of this dataset says were being decoded."""
    try:
        data = np.frombuffer(read_bounded(path, 8 * (_HEAD + _SLOTS)), "<i8")
    except (OSError, InputError, ValueError):
        return set()
    if data[:_HEAD].tolist() != identity:
        return set()
    return {int(sample) - 1 for sample in data[_HEAD:] if 0 < sample <= identity[1]}


def _append(path: Path, keys: list[str]) -> None:
    with contextlib.suppress(OSError):
        known = set(path.read_text().splitlines()) if path.exists() else set()
        text = "".join(f"{key}\n" for key in keys if key not in known and "\n" not in key)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, text.encode(errors="backslashreplace"))
        finally:
            os.close(file)

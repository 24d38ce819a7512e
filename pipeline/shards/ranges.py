"""Byte ranges of remote shards, kept in blocks on this machine's disk.

    CACHE/<dataset>/ranges/<shard>        the shard with holes: only blocks that were needed have content
    CACHE/<dataset>/ranges/<shard>.have   a byte per block: 1 once its content is there

A clip needs 60 kB of a shard of a gigabyte. Its blocks are fetched in one request (``signed_requests.py``), tried again
after a pause when the server is busy or the answer is short, and shared by all processes of this machine. The least
recently used blocks, shard by shard, are removed when there is too much. Content is not checked here but by the CRC-32
of every fragment, which the index has.
"""

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .signed_requests import SignedRequests

BLOCK = 4 << 10  # bytes: a header and 60 kB of a clip are then 1.1 times what they need
_SHARERS = 16  # processes that may fill what room there was before one of them counts again
_TRIES, _FIRST_PAUSE = 7, 0.1  # seconds, doubled each time: 6 s in all


class RangeCache:
    """Reads ranges of a dataset's shards. Safe to use from many threads and processes.

    Args:
        files: an fsspec file system.
        address: of the dataset, for messages.
        path: of the dataset in ``files``.
        sizes: bytes of each shard by name.
        folder: where blocks are kept.
        max_bytes: of blocks kept.
    """

    def __init__(self, files: Any, address: str, path: str, sizes: dict[str, int], folder: Path, max_bytes: int):
        self._files, self._address, self._path, self._sizes = files, address, path, sizes
        self._folder, self._max_bytes = folder, max_bytes
        self._open: dict[str, _Sparse] = {}
        self._lock = threading.Lock()
        self._signed = SignedRequests.of(files)
        self._uncounted, self._room = 0, 0  # bytes fetched since what is kept was counted, and the room there was then
        self.bytes_fetched = 0

    def read(self, name: str, view: memoryview, offset: int, fresh: bool = False) -> int:
        """Fill ``view`` with the bytes of a shard from ``offset`` on; fewer at its end.

        Args:
            fresh: fetch them even if they are kept.

        Returns:
            How many bytes there were.

        Raises:
            InputError: the server does not give them.
        """
        size = self._sizes[name]
        wanted = max(0, min(len(view), size - offset))
        if not wanted:
            return 0
        shard = self._sparse(name)
        first, last = offset // BLOCK, (offset + wanted - 1) // BLOCK + 1
        missing = np.flatnonzero(np.asarray(shard.have[first:last]) == 0) if not fresh else np.arange(last - first)
        if len(missing):
            begin = (first + int(missing[0])) * BLOCK
            end = min((first + int(missing[-1]) + 1) * BLOCK, size)
            data = self._fetch(name, begin, end)
            os.pwrite(shard.descriptor, data, begin)
            shard.have[begin // BLOCK : -(-end // BLOCK)] = 1
            with self._lock:
                self.bytes_fetched += len(data)
                self._uncounted += len(data)
                crowded = self._uncounted * _SHARERS >= self._room
            if crowded:
                self._make_room(keep=name)
        return os.preadv(shard.descriptor, [view[:wanted]], offset)

    def _fetch(self, name: str, begin: int, end: int) -> bytes:
        problem: object = None
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                path, data = f"{self._path}/{name}", None
                if self._signed is not None and not attempt:  # what fails there is tried again by the file system
                    data = self._signed.get(path, begin, end)
                if data is None:
                    data = self._files.cat_file(path, start=begin, end=end)
            except FileNotFoundError as error:
                raise InputError(f"{self._address}/{name}: the shard is no longer there") from error
            except Exception as error:  # each file system has errors of its own for a busy server and a broken line
                problem = f"{type(error).__name__}: {error}"
                continue
            if len(data) == end - begin:
                return data
            problem = f"{len(data)} of {end - begin} bytes came"
        raise InputError(
            f"{self._address}/{name}: {_TRIES} tries to read bytes {begin} to {end} failed, the last with: {problem}"
        )

    def _sparse(self, name: str) -> "_Sparse":
        with self._lock:
            shard = self._open.get(name)
            if shard is None:
                shard = self._open[name] = _Sparse(self._folder / name, self._sizes[name])
            shard.used = time.monotonic()
            return shard

    def _make_room(self, keep: str) -> None:
        with self._lock:
            kept = sorted(self._open, key=lambda name: self._open[name].used)
            total = sum(self._open[name].kept for name in kept)
            for name in kept:
                if total <= self._max_bytes or name == keep:
                    break
                total -= self._open[name].kept
                self._open.pop(name).remove()  # what still reads from it keeps it open
            self._uncounted, self._room = 0, self._max_bytes - total


class _Sparse:
    """A shard with holes."""

    def __init__(self, path: Path, size: int):
        self._path, self._marks = path, path.with_name(path.name + ".have")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        marks = os.open(self._marks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # allocated at once: writing to a mapped hole on a full disk would end the process (SIGBUS)
            blocks = max(1, -(-size // BLOCK))
            os.posix_fallocate(marks, 0, blocks)
            os.ftruncate(marks, blocks)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); free some space, or give another --loader.cache"
            ) from None
        finally:
            os.close(marks)
        self.have = np.memmap(self._marks, np.uint8, "r+")
        self.used = 0.0

    @property
    def kept(self) -> int:
        """Bytes on disk."""
        return int(np.count_nonzero(self.have)) * BLOCK

    def remove(self) -> None:
        """Free its space; it can be read until it is let go."""
        for path in (self._marks, self._path):
            try:
                path.unlink()
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise

    def __del__(self):
        os.close(self.descriptor)

"""The list of clips that could not be delivered: named, written down, limited."""

import csv
import io
import logging
import os
import threading
from pathlib import Path

from ..errors import InputError
from ..safe_text import csv_cell, printable
from ..shards.index import SampleIndex

_COLUMNS = ("key", "shard", "sample", "position", "start_frame", "reason")

_log = logging.getLogger(__name__)


class BadClips:
    """Counts bad samples and stops the run above a limit; many threads, and many processes on one file, may use it.

    Args:
        index: the dataset.
        max_fraction: share of the dataset's samples that may turn out bad; any share above 0 allows at least one.
        path: the CSV to append to, or None.
        left_out: samples that the user leaves out; they are written down, but do not count as bad.
    """

    def __init__(
        self,
        index: SampleIndex,
        max_fraction: float,
        path: Path | None = None,
        left_out: frozenset[int] = frozenset(),
    ):
        self._index, self._path, self._lock = index, path, threading.Lock()
        self.left_out = left_out
        self._max_fraction = max_fraction
        self._allowed = max(1, int(max_fraction * len(index))) if max_fraction > 0 else 0
        self.samples: set[int] = set()
        self.clips = 0

    def report(self, sample: int, position: int, start_frame: int, reason: str) -> None:
        """Write down one bad clip.

        Raises:
            InputError: there are now more bad samples than allowed.
        """
        key = self._index.key(sample)
        shard = self._index.shard_names[int(self._index.shard[sample])]
        reason = printable(" ".join(reason.split()))
        with self._lock:
            self.clips += 1
            if sample not in self.samples:
                self.samples.add(sample)
                if sample not in self.left_out:
                    _log.warning("bad clip %s (%s, frame %d): %s", printable(key), shard, start_frame, reason)
                if self._path is not None:
                    self._append(self._path, (csv_cell(key), shard, sample, position, start_frame, csv_cell(reason)))
            bad = len(self.samples - self.left_out)
        if bad > self._allowed:
            where = f"; all are in {self._path}" if self._path is not None else ""
            raise InputError(
                f"{bad} of {len(self._index)} samples are bad, the last one {key} in {shard} ({reason}); "
                f"allowed are {self._allowed} (max_bad_fraction = {self._max_fraction:g}){where}. "
                "Run `unstill verify` on the dataset"
            )

    def _append(self, path: Path, row: tuple) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._write(path, _COLUMNS, os.O_EXCL)
        except FileExistsError:
            pass
        self._write(path, row, 0)

    def _write(self, path: Path, row: tuple, flags: int) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        # one write to a file opened for appending: ranks that share the file do not tear each other's lines
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | flags, 0o644)
        try:
            os.write(file, line.getvalue().encode())
        finally:
            os.close(file)

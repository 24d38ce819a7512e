"""Reads the bytes of the GOPs that a clip touches, and nothing else, by position from the index.

What comes out is an ordinary MP4 of the frames that must be decoded. All bytes of the GOPs are read, in one piece, and
checked against the CRC-32 that the converter wrote; frames that nothing needs are left out when the MP4 is built (15
reads of 2.5 kB cost more than one of 60 kB). ``preadv`` and ``crc32`` both release the interpreter lock, so threads can
read while the training loop runs.
"""

import errno
import functools
import os
import resource
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..shards.fragments import touched_fragments
from ..shards.index import SampleIndex
from ..shards.plain_mp4 import needed_samples, plain_mp4
from ..shards.ranges import RangeCache
from ..shards.sample_table import TrackHeader, parse_fragments, parse_header
from ..shards.stream_size import check_size
from .frame_decoder import SliceTable

_DAMAGED = "the shard was changed or damaged after the conversion"
_FETCHES = 4  # of bytes whose checksum is wrong, before they are called damaged
_HEADERS = 4096  # of remote videos, kept: 700 bytes each
_SPARE_FILES = 256  # left to the rest of the process when shards are kept open


class BadClip(Exception):
    """A clip that cannot be delivered; the message says why."""


@dataclass(frozen=True)
class ClipFile:
    """What a decoder needs for one clip.

    Attributes:
        mp4: uint8 (n,), an ordinary MP4.
        frames: int64 (T,), the frame of ``mp4``, in the order shown, that each clip frame is.
        bytes_read: bytes that were read for it.
        table: where its frames are; None for a file as it was stored.
    """

    mp4: np.ndarray
    frames: np.ndarray
    bytes_read: int
    table: SliceTable | None = None


class _OpenShard:
    """A file descriptor that is closed when the last thread that reads from it lets go."""

    def __init__(self, fd: int):
        self.fd = fd

    def __del__(self):
        os.close(self.fd)


def shards_in(folder: Path, index: SampleIndex) -> Callable[[int], int]:
    """``open_shard`` of a ``GopReader`` for a dataset in a local folder."""
    return lambda shard: os.open(folder / index.shard_names[shard], os.O_RDONLY | os.O_CLOEXEC)


class GopReader:
    """Opens the shards of a dataset once and cuts clips out of them.

    Args:
        index: the dataset.
        open_shard: opens a shard by its row in ``index.shard_names``, gives the descriptor; called when first needed.

    Safe to use from many threads.
    """

    clips_per_task = 16  # large enough to hide the cost of a task, small enough to spread a batch

    def __init__(self, index: SampleIndex, open_shard: Callable[[int], int]):
        self.index, self._open_shard = index, open_shard
        # plain arrays over the same memory: taking one number out of a memory map costs ten times as much
        columns = (
            "shard mp4_offset init_bytes init_crc gop frames layers fragment_row fragment_end fragment_crc".split()
        )
        self._column = {name: np.asarray(getattr(index, name)) for name in columns}
        self._checked = bytearray(len(index.fragment_end))  # fragments whose pictures have the size of the index
        self._files: dict[int, _OpenShard] = {}
        self._lock = threading.Lock()
        _allow_open_files(len(index.shard_names))

    def spans(self, sample: np.ndarray, first_frame: np.ndarray, last_frame: np.ndarray) -> np.ndarray:
        """int64 (n, 2): first and one-past-last fragment that frames ``first_frame .. last_frame`` lie in."""
        gop, frames = (self._column[name][sample].astype(np.int64) for name in ("gop", "frames"))
        return np.stack(touched_fragments(first_frame, last_frame - first_frame + 1, frames, gop), axis=1)

    def fragments(self, sample: int, first_frame: int, last_frame: int) -> tuple[int, int]:
        """First and one-past-last fragment that frames ``first_frame .. last_frame`` of one video lie in."""
        gop = int(self._column["gop"][sample])
        return first_frame // gop, last_frame // gop + 1

    def clip(self, sample: int, frames: np.ndarray) -> ClipFile:
        """The frames of one clip, and those that they are decoded from.

        Args:
            sample: row of the index.
            frames: int64 (T,), numbers in the video, in any order.

        Raises:
            BadClip: the bytes are missing, are not those that the converter wrote, or are no video of our format.
        """
        gop, header = int(self._column["gop"][sample]), int(self._column["init_bytes"][sample])
        wanted = frames.tolist()
        first, last = self.fragments(sample, min(wanted), max(wanted))
        data = self.read(sample, first, last)
        view = data.data
        row = int(self._column["fragment_row"][sample])
        ends = self._column["fragment_end"][row + first : row + last].astype(np.int64)
        ends += len(data) - ends[-1]
        try:
            samples = parse_fragments(view, header, ends.tolist(), first * gop, gop)
            kept = needed_samples(samples, wanted, int(self._column["layers"][sample]))
            track = _parsed_header(bytes(view[:header]))
            if 0 in self._checked[row + first : row + last]:
                contents = (view[at : at + size] for at, size in zip(samples.offset, samples.size, strict=True))
                check_size(track.description, contents, self._picture(sample))
                self._checked[row + first : row + last] = b"\1" * (last - first)
            mp4, numbers = plain_mp4(track, data, samples, kept)
        except ValueError as error:
            raise BadClip(f"its bytes are those that were written, but no video of a shard: {error}") from error
        shown = [samples.frame[k] for k in kept]
        shown = list(range(len(kept))) if shown == numbers else np.searchsorted(numbers, shown).tolist()
        table = SliceTable(track, [samples.size[k] for k in kept], shown)
        return ClipFile(mp4, np.searchsorted(numbers, frames), len(data), table)

    def _picture(self, sample: int) -> tuple[int, int]:
        return int(self.index.width[sample]), int(self.index.height[sample])

    def read(self, sample: int, first: int, last: int) -> np.ndarray:
        """The header and fragments ``first .. last - 1`` of one sample.

        Returns:
            uint8 (n,), an MP4 that decodes by itself; its frame 0 is frame ``first * gop`` of the video.

        Raises:
            BadClip: the bytes are missing or are not those that the converter wrote.
        """
        column = self._column
        row, header, offset = (int(column[name][sample]) for name in ("fragment_row", "init_bytes", "mp4_offset"))
        ends = column["fragment_end"][row + first : row + last].tolist()
        begin = int(column["fragment_end"][row + first - 1]) if first else header
        data = np.empty(header + ends[-1] - begin, np.uint8)
        view = data.data
        if begin == header:
            self._fill(sample, view, offset)
        else:
            self._fill_header(sample, view[:header], offset)
            self._fill(sample, view[header:], offset + begin)

        if zlib.crc32(view[:header]) != int(column["init_crc"][sample]):
            raise BadClip(f"the CRC-32 of its header is wrong: {_DAMAGED}")
        self._header_is_right(sample, view[:header])
        position, shift = header, header - begin
        crcs = column["fragment_crc"][row + first : row + last].tolist()
        for fragment, (end, crc) in enumerate(zip(ends, crcs, strict=True), first):
            if zlib.crc32(view[position : end + shift]) != crc:
                raise BadClip(f"the CRC-32 of its fragment {fragment} is wrong: {_DAMAGED}")
            position = end + shift
        return data

    def close(self) -> None:
        """Close all shards."""
        with self._lock:
            self._files.clear()

    def _fill_header(self, sample: int, view: memoryview, offset: int) -> None:
        self._fill(sample, view, offset)

    def _header_is_right(self, sample: int, header: memoryview) -> None:
        pass

    def _fill(self, sample: int, view: memoryview, offset: int) -> None:
        try:
            shard = self._open(int(self._column["shard"][sample]))
            got = os.preadv(shard.fd, [view], offset)
            while 0 < got < len(view):  # a signal or a network file system may return less than was asked for
                more = os.preadv(shard.fd, [view[got:]], offset + got)
                if more == 0:
                    break
                got += more
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise InputError(
                    f"too many open files for {len(self.index.shard_names)} shards: raise `ulimit -n`"
                ) from error
            if error.errno == errno.ENOMEM:
                raise
            raise BadClip(f"its shard cannot be read: {error}") from error
        if got < len(view):
            raise BadClip(f"its shard ends at byte {offset + got}, within the clip: the shard is truncated")

    def _open(self, row: int) -> _OpenShard:
        shard = self._files.get(row)
        if shard is None:
            opened = _OpenShard(self._open_shard(row))
            with self._lock:
                shard = self._files.get(row)
                if shard is None:
                    # a cache may have removed shards that are open here; their space is free once they are closed
                    removed = [r for r, other in self._files.items() if os.fstat(other.fd).st_nlink == 0]
                    for r in removed:
                        del self._files[r]
                    shard = self._files[row] = opened
        return shard


class RangeReader(GopReader):
    """Reads the clips of a remote dataset by ranges, one request a clip.

    Videos of one size, rate and encoder have the same header. One that was read before and has the length and checksum
    that the index gives is not asked for again: it would be the second request of a clip.

    Args:
        index: the dataset.
        ranges: of its shards.
    """

    clips_per_task = 1  # a request waits most of its time: as many as there are threads are on their way

    def __init__(self, index: SampleIndex, ranges: RangeCache):
        super().__init__(index, lambda _: -1)
        self._ranges, self._thread = ranges, threading.local()
        self._headers: dict[tuple, bytes] = {}
        shape = "init_bytes init_crc codec width height fps_milli".split()
        self._shape = [np.asarray(getattr(index, name)) for name in shape]

    def read(self, sample: int, first: int, last: int) -> np.ndarray:
        """See ``GopReader.read``; what is damaged is fetched again, in case it was so only on its way."""
        try:
            for _ in range(_FETCHES - 1):
                try:
                    return super().read(sample, first, last)
                except BadClip:
                    self._thread.fresh = True
            return super().read(sample, first, last)
        finally:
            self._thread.fresh = False

    def _fill_header(self, sample: int, view: memoryview, offset: int) -> None:
        known = None if self._fresh else self._headers.get(self._kind(sample))
        if known is None:
            self._fill(sample, view, offset)
        else:
            view[:] = known

    def _header_is_right(self, sample: int, header: memoryview) -> None:
        if len(self._headers) < _HEADERS and (kind := self._kind(sample)) not in self._headers:
            self._headers[kind] = bytes(header)

    def _kind(self, sample: int) -> tuple:
        # with the shape of the video, so that not even equal checksums of different headers would matter
        return tuple(int(column[sample]) for column in self._shape)

    @property
    def _fresh(self) -> bool:
        return getattr(self._thread, "fresh", False)

    def _fill(self, sample: int, view: memoryview, offset: int) -> None:
        name = self.index.shard_names[int(self._column["shard"][sample])]
        got = self._ranges.read(name, view, offset, self._fresh)
        if got < len(view):
            raise BadClip(f"its shard ends at byte {offset + got}, within the clip: the shard is truncated")


@functools.lru_cache(maxsize=256)
def _parsed_header(header: bytes) -> TrackHeader:
    """Videos of one size and codec mostly have the same header."""
    return parse_header(header)


def _allow_open_files(shards: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = shards + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))

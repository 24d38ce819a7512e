"""Files that appear complete or not at all: written under a temporary name, fsynced, renamed, the folder fsynced.

write_atomic(path, data)                  bytes that are at hand
with atomic_path(path) as partial: ...    a library writes the file and wants a path
AtomicFile(path)                          bytes that come piece by piece
"""

import errno
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

_PARTIAL = re.compile(r"^\..*\.(?P<host>[^.]*)\.(?P<pid>\d+)(\.[0-9a-f]{16})?\.partial$")


class AtomicFile:
    """A file that gets its name ``path`` on ``commit``, and vanishes on ``discard``.

    Args:
        path: the final name.
        durable: bring it to the disk before the rename, so that it survives a power cut. False is faster, for many
            files that can be made again.

    Attributes:
        path: the final name.
        partial: the name it has until then.

    Raises (all methods):
        InputError: no space, no permission, or another failure of the file system; the message says what to do.
    """

    def __init__(self, path: Path, *, durable: bool = True):
        self.path = path
        self.partial = _partial_name(path)
        self._durable = durable
        with explain_os_errors(path):
            # exclusive and never through a link: others may be allowed to write to this folder
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = open(os.open(self.partial, flags, 0o666), "wb", buffering=1 << 20)

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        with explain_os_errors(self.path):
            self._file.write(data)

    def close(self) -> None:
        """Bring everything to the disk; the file still has no name."""
        with explain_os_errors(self.path):
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
            self._file.close()

    def commit(self) -> None:
        """Give the file its name, over an older one."""
        if not self._file.closed:
            self.close()
        with explain_os_errors(self.path):
            os.replace(self.partial, self.path)
            if self._durable:
                fsync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove the file; harmless after ``commit``."""
        try:
            self._file.close()
        except OSError:
            pass  # closing flushes, and the disk may be full
        self.partial.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically; see ``AtomicFile``."""
    file = AtomicFile(path)
    try:
        file.write(data)
        file.commit()
    finally:
        file.discard()


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name, for a library that writes files by path; the file there gets the name ``path`` at the end.

    Args:
        path, durable: see ``AtomicFile``.

    Raises:
        InputError: the file system refused something in the block or the rename. After any error nothing is left of
            the temporary file, and an older ``path`` is as it was.
    """
    partial = _partial_name(path)
    try:
        with explain_os_errors(path):
            yield partial
            if durable:
                with open(partial, "rb+") as file:
                    os.fsync(file.fileno())
            os.replace(partial, path)
            if durable:
                fsync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn a failure of the file system below ``path`` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError(f"{path}: no space left to write it; free some and run the same command again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError(f"{path}: not allowed to write here; choose a folder of yours") from error
        raise InputError(f"{path}: writing failed ({os.strerror(error.errno or 0)})") from error


def check_folder(path: Path) -> None:
    """Refuse, before long work, a folder that could not be made or written at its end. Makes nothing.

    Raises:
        InputError: it is a file or below one, or may not be written.
    """
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise InputError(f"{there}: is a file, expected a folder or a new name")
    if not os.access(there, os.W_OK):
        raise InputError(f"{there}: not allowed to write here; choose a folder of yours")


def make_folder(path: Path) -> None:
    """Create ``path`` and its parents; an existing folder is fine.

    Raises:
        InputError: it is a file, or cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, expected a folder or a new name")
    with explain_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def sweep_partials(folder: Path) -> None:
    """Remove what runs of this machine that were killed left half written; files of live processes stay."""
    for entry in os.scandir(folder):
        match = _PARTIAL.match(entry.name)
        if match and match["host"] == _host() and not _alive(int(match["pid"])):
            Path(entry.path).unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``folder``; the kernel drops it when the process dies, whatever the clock says.

    File systems without locks (some network ones) go on without: the outputs of two runs are the same bytes anyway.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        yield
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial_name(path: Path) -> Path:
    """A name that no one can predict, so that no link can wait there."""
    return path.parent / f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(8)}.partial"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

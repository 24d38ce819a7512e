"""Small files that may be untrusted: plain files of a bounded size only, never a pipe or a device."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from .errors import InputError

JSON_BYTES = 256 << 20  # dataset.json of a million classes or shards is far below


def open_plain(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a plain file, for ``open(..., opener=open_plain)``.

    Raises:
        InputError: it is a pipe, a device or similar: opening one could block forever.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise InputError(f"{path}: not a plain file; remove or replace it")
    return descriptor


def check_plain(path: Path) -> Path:
    """The path of a plain file, for a library that opens it by its name.

    Raises:
        InputError: it is a pipe, a device or the like: opening one could block for ever, reading one never end.
        OSError: it cannot be opened.
    """
    os.close(open_plain(path))
    return path


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a plain file.

    Args:
        path: the file.
        most: largest size in bytes that is read.

    Raises:
        InputError: not a plain file (a pipe could block for ever, a device never end), or a larger one.
        OSError: it cannot be opened, ``FileNotFoundError`` among them.
    """
    with open(path, "rb", opener=open_plain) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise InputError(f"{path}: {size} bytes, at most {most} are read; it is damaged or not ours")
        data = file.read(size + 1)
    return data[:most]


def parse_json(data: bytes | str, **options: Any) -> Any:
    """What JSON text says; ``options`` are those of ``json.loads``.

    Raises:
        ValueError: it is not JSON, is not UTF-8, or is nested too deeply.
    """
    try:
        return json.loads(data, **options)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is not JSON, is not UTF-8, or is nested too deeply.
        InputError, OSError: see ``read_bounded``.
    """
    return parse_json(read_bounded(path, most))

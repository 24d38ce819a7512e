"""Small files that may come from strangers: plain files of a bounded size only, never a pipe or a device."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from .errors import InputError

JSON_BYTES = 256 << 20  # dataset.json of a million classes or shards is far below


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a plain file.

    Args:
        path: the file.
        most: largest size in bytes that is read.

    Raises:
        InputError: not a plain file (a pipe could block for ever, a device never end), or a larger one.
        OSError: it cannot be opened, ``FileNotFoundError`` among them.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, os.strerror(21), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: not a plain file; remove or replace it")
        if status.st_size > most:
            raise InputError(f"{path}: {status.st_size} bytes, at most {most} are read; it is damaged or not ours")
        data = file.read(most + 1)
    if len(data) > most:  # it grew, or its size is not told
        raise InputError(f"{path}: more than {most} bytes; it is damaged or not ours")
    return data


def parse_json(data: bytes | str) -> Any:
    """What JSON text says.

    Raises:
        ValueError: it is not JSON, is not UTF-8, or is nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is not JSON, is not UTF-8, or is nested too deeply.
        InputError, OSError: see ``read_bounded``.
    """
    return parse_json(read_bounded(path, most))

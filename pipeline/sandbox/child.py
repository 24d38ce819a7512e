"""The side of the child: fences, limits, and messages on standard input (a socket) and output.

Each message is a length-prefixed JSON header and a length-prefixed payload; nothing is unpickled on either side, so a
decoder taken over by a hostile file cannot hand objects to its parent. Files come as open descriptors: limits and
fences (``fence.py``) are in place before the first byte of any video is read, and then this process can open nothing.
"""

import contextlib
import ctypes
import importlib
import json
import os
import pkgutil
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO

from .fence import close_fence, leave_network

NEARLY = 0.7  # of the memory limit used: a failure is blamed on it
FRAME = struct.Struct("<II")  # bytes of the header, bytes of the payload
MAX_DESCRIPTORS = 48  # in one request
_status: int | None = None  # descriptor of /proc/self/status

Answer = Callable[[dict, bytes], None]
Handle = Callable[[dict, bytes, list[int], Answer], tuple[dict, bytes]]


def serve(prepare: Callable[[], Handle]) -> None:
    """Answer requests until the input ends.

    Args:
        prepare: imports what is needed and returns what answers: called with the request's header, its payload, the
            descriptors that came with it (closed afterwards), and what sends answers before the last one; returns the
            last one.
    """
    requests, answers = socket.socket(fileno=os.dup(0)), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not break the message stream
    limits = json.loads(sys.argv[1])
    _die_with_parent()
    missing = [leave_network()] if limits["fenced"] else []  # while there is one thread
    handle = prepare()
    _import_all("av")
    base = _limit(limits["memory_bytes"])
    if limits["fenced"]:
        missing += close_fence()
    send(answers, {"missing": [name for name in missing if name]})
    for task, payload, descriptors in _requests(requests):
        _limit_cpu(limits["seconds"])
        try:
            header, result = handle(task, payload, descriptors, lambda *answer: send(answers, *answer))
            # some decoders call it damaged data when their memory runs out
            if "bad" in header and _most_mapped() > base + NEARLY * limits["memory_bytes"]:
                raise MemoryError
        except MemoryError:
            # freed memory is often not given back, so the next video would start with less: leave, be replaced
            send(answers, {"bad": "memory", "detail": f"needs more than {limits['memory_bytes'] >> 20} MB"})
            return
        except Exception as error:  # a fault of ours or of PyAV, not of the video: say which instead of dying mutely
            send(answers, {"bad": "crashed", "detail": f"{type(error).__name__}: {error}"[:300]})
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        send(answers, header, result)


def send(stream: IO[bytes], header: dict, payload: bytes = b"") -> None:
    """Write one message and flush it."""
    text = json.dumps(header).encode()
    stream.write(FRAME.pack(len(text), len(payload)) + text)
    stream.write(payload)
    stream.flush()


def _requests(requests: socket.socket) -> Iterator[tuple[dict, bytes, list[int]]]:
    """Header, payload and descriptors of each request."""
    while True:
        prefix, descriptors, _, _ = socket.recv_fds(requests, FRAME.size, MAX_DESCRIPTORS)
        if len(prefix) < FRAME.size:
            return
        size, payload_size = FRAME.unpack(prefix)
        text, payload = _exactly(requests, size), _exactly(requests, payload_size)
        if text is None or payload is None:
            return
        yield json.loads(text), payload, descriptors


def _exactly(requests: socket.socket, size: int) -> bytes | None:
    """The next ``size`` bytes; None where the input ends before."""
    parts = []
    while size:
        part = os.read(requests.fileno(), min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _import_all(name: str) -> None:
    """Import what is otherwise imported on first use: behind the fence no module can be read."""
    for codec in ("ascii", "latin_1", "unicode_escape", "raw_unicode_escape", "utf_16", "utf_32", "idna"):
        importlib.import_module(f"encodings.{codec}")
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}.", onerror=lambda _: None):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


def _limit(memory_bytes: int) -> int:
    """Set all limits but that on CPU time; returns the bytes that the idle process maps."""
    mapped = _most_mapped()
    # what the interpreter and the libraries already map is not the video's
    _lower(resource.RLIMIT_AS, mapped + memory_bytes)
    _lower(resource.RLIMIT_FSIZE, 0)  # results leave through the pipe: no file can be written
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 64)
    return mapped


def _most_mapped() -> int:
    """The most bytes of address space that this process has had."""
    # opened once: behind the fence nothing can be opened
    global _status
    _status = os.open("/proc/self/status", os.O_RDONLY) if _status is None else _status
    lines = os.pread(_status, 1 << 16, 0).splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(b"VmPeak"))


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _limit_cpu(seconds: float) -> None:
    used = time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 2, hard))


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: kill -9 of the parent leaves no orphan

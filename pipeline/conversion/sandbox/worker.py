"""The child process in which videos are decoded and encoded: ``python -m unstill.pipeline.conversion.sandbox.worker``.

Reads requests on standard input and answers on standard output until the input ends. Each message is a length-prefixed
JSON header and a length-prefixed payload; nothing is unpickled on either side, so a decoder taken over by a hostile
file cannot hand objects to its parent. Limits are set before the first byte of any video is read.
"""

import ctypes
import json
import os
import resource
import struct
import sys
import time
from typing import IO

NEARLY = 0.7  # of the memory limit used: a failure is blamed on it
FRAME = struct.Struct("<II")  # bytes of the header, bytes of the payload


def send(stream: IO[bytes], header: dict, payload: bytes = b"") -> None:
    """Write one message and flush it."""
    text = json.dumps(header).encode()
    stream.write(FRAME.pack(len(text), len(payload)) + text)
    stream.write(payload)
    stream.flush()


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not break the message stream
    _die_with_parent()
    _leave_network()
    limits = json.loads(sys.argv[1])
    from .task import run_task

    base = _limit(limits["memory_bytes"])
    while True:
        prefix = requests.read(FRAME.size)
        if len(prefix) < FRAME.size:
            return
        size, _ = FRAME.unpack(prefix)
        task = json.loads(requests.read(size))
        _limit_cpu(limits["seconds"])
        try:
            header, payload = run_task(task)
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
        send(answers, header, payload)


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
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmPeak"))


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
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: kill -9 of the converter leaves no orphan


def _leave_network() -> None:
    """Move into a network of its own without any interface, where the system lets us (it is a second fence only)."""
    if sys.platform == "linux":
        new_user, new_network = 0x10000000, 0x40000000
        ctypes.CDLL(None).unshare(new_network if os.geteuid() == 0 else new_user | new_network)


if __name__ == "__main__":
    main()

"""Runs one case in a forked child and says how it ended."""

import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable

from unstill.pipeline.errors import InputError

FAULTS = ("signal", "hang", "traceback", "memory", "wrong data")
SECONDS, MEMORY = 40.0, 16 << 30


def alone(read: Callable[[], str]) -> tuple[str, str]:
    """Run ``read`` in a child; (outcome, detail)."""
    pipe, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(pipe)
        _run(read, written)
    os.close(written)
    data, waited = b"", 0.0
    while waited < SECONDS:
        begin = time.monotonic()
        ready = select.select([pipe], [], [], 1.0)[0]
        waited += min(time.monotonic() - begin, 1.5)  # not the time in which this machine stood still
        if ready:
            part = os.read(pipe, 65536)
            if not part:
                break
            data += part
    else:
        os.kill(pid, signal.SIGKILL)
        data = b'["hang", ""]'
    os.close(pipe)
    _, status = os.waitpid(pid, 0)
    if not data:
        return "signal", f"status {status}"
    outcome, detail = json.loads(data)
    return outcome, detail


def _run(read: Callable[[], str], written: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        found = read(), ""
    except InputError as error:
        found = ("one line" if "\n" not in str(error) else "traceback"), str(error)
    except MemoryError:
        found = "memory", traceback.format_exc()[-800:]
    except BaseException:
        found = "traceback", traceback.format_exc()[-800:]
    os.write(written, json.dumps(found).encode()[:60000])
    os._exit(0)

"""Persistent sandboxed workers: one video at a time each, a crash or hang charged to the video that caused it."""

import json
import logging
import os
import selectors
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from ...bounded_files import parse_json
from ...errors import InputError
from ...safe_text import printable
from ...shards.quarantine import REASONS, BadVideo
from ...sources.tree import fetched
from .worker import FRAME

Sandbox = Literal["require", "auto", "off"]

MAX_HEADER, MAX_PAYLOAD = 16 << 20, 1 << 30  # bytes of an answer
_START_SECONDS = 120.0  # for the child to import what it needs
# what the child sees of this process's environment: how to find Python's files, no credentials
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_log = logging.getLogger(__name__)
_told = threading.Event()  # what this system lacks has been said
AHEAD = 4  # tasks per worker that may be finished but not yet taken: bounds memory behind one slow video


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one video may cost."""

    seconds: float
    """Wall-clock and, separately, CPU seconds."""
    memory_bytes: int
    """Memory beyond what the idle worker maps."""
    sandbox: Sandbox = "auto"
    """require: do not decode where a fence is missing (``fence.py``). auto: say once what is missing. off: limits, but
    no fences."""


@dataclass(frozen=True)
class _Child:
    """A running child: the socket that requests go to, and the pipe that answers come from."""

    process: subprocess.Popen
    requests: socket.socket
    answers: int


class Worker:
    """One child process; started on first use and again after each death."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._child: _Child | None = None

    def run(self, task: dict) -> tuple[dict, bytes]:
        """Give ``task`` to the child and wait for its answer.

        Args:
            task: see ``run_task``, but with ``path`` in place of ``file``: it is opened here, the child cannot.

        Returns:
            ``run_task``'s (header, payload). A child that dies, hangs or runs out of memory gives
            ``{"bad": "crashed" | "timeout" | "memory", "detail": ...}`` and is replaced by the next call.

        Raises:
            InputError: a fence is missing and ``Limits.sandbox`` requires it.
        """
        return next(self.stream(task))

    def stream(self, task: dict) -> Iterator[tuple[dict, bytes]]:
        """Give ``task`` to the child; yields its answers, as many as are taken, each as ``run`` returns it."""
        child = self._child
        if child is None or child.process.poll() is not None:
            child = self._start()
        sent = False
        while True:
            header, payload = self._answer(child, None if sent else task)
            sent = True
            yield header, payload
            if "bad" in header:
                return

    def _answer(self, child: _Child, task: dict | None) -> tuple[dict, bytes]:
        try:
            if task is not None:
                _send(child.requests, task)
            header, payload = self._receive(child.answers, time.monotonic() + self.limits.seconds)
        except TimeoutError:
            self.close(kill=True)
            return {"bad": "timeout", "detail": f"not done after {self.limits.seconds:g} s"}, b""
        except (EOFError, BrokenPipeError, ConnectionResetError, ValueError):
            try:
                child.process.wait(timeout=1)  # what it died of is not to be the signal that clears it away
            except subprocess.TimeoutExpired:
                pass
            self.close(kill=True)
            return self._exit_reason(child.process.returncode), b""
        if header.get("bad") in ("memory", "crashed"):  # it leaves after saying so
            self.close()
        return header, payload

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when there is none."""
        return None if self._child is None else self._child.process.pid

    def kill(self) -> None:
        """End the child at once; a ``run`` that waits for it returns. For use from another thread."""
        if (child := self._child) is not None:
            child.process.kill()

    def close(self, kill: bool = False) -> None:
        """End the child; it is never left behind."""
        child, self._child = self._child, None
        if child is None:
            return
        if kill:
            child.process.kill()
        child.requests.close()
        try:
            child.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        os.close(child.answers)

    def _start(self) -> _Child:
        self.close()
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        limits = {"seconds": self.limits.seconds, "memory_bytes": self.limits.memory_bytes}
        limits["fenced"] = self.limits.sandbox != "off"
        requests, theirs = socket.socketpair()
        answers, written = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "unstill.pipeline.conversion.sandbox.worker", json.dumps(limits)],
                stdin=theirs.fileno(),
                stdout=written,
                stderr=subprocess.DEVNULL,  # decoders chatter; what matters comes back as a reason
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the converter alone, which then ends its workers
            )
        finally:
            theirs.close()
            os.close(written)
        os.set_blocking(answers, False)
        self._child = child = _Child(process, requests, answers)
        try:
            greeting, _ = self._receive(answers, time.monotonic() + _START_SECONDS)
            self._judge(greeting["missing"])
        except (TimeoutError, EOFError, ValueError):
            self.close(kill=True)
            raise RuntimeError(f"a decoding process did not start (status {process.returncode})") from None
        except InputError:
            self.close(kill=True)
            raise
        return child

    def _judge(self, missing: list[str]) -> None:
        """Say once, or refuse, what the child could not put between itself and this machine."""
        if not missing:
            return
        lacks = f"this system lacks {' and '.join(missing)}: a video that takes over the decoder could do more harm"
        if self.limits.sandbox == "require":
            raise InputError(f"--sandbox require: {lacks}; use another system, or --sandbox auto to go on")
        if not _told.is_set():
            _told.set()
            _log.warning("sandbox: %s", lacks)

    def _receive(self, answers: int, deadline: float) -> tuple[dict, bytes]:
        size, payload_size = FRAME.unpack(self._read(answers, FRAME.size, deadline))
        if size > MAX_HEADER or payload_size > MAX_PAYLOAD:
            raise ValueError("a worker's answer is larger than any real one")
        header, payload = parse_json(self._read(answers, size, deadline)), self._read(answers, payload_size, deadline)
        if not isinstance(header, dict):
            raise ValueError("a worker's answer is not an object")
        if "bad" in header:
            if header["bad"] not in REASONS or not isinstance(header.get("detail"), str):
                raise ValueError("a worker's answer has a reason that there is not")
            header["detail"] = printable(header["detail"][:1000])
        return header, payload

    def _read(self, answers: int, count: int, deadline: float) -> bytes:
        parts, missing = [], count
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            while missing:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(answers, min(missing, 1 << 20))
                if not part:
                    raise EOFError
                parts.append(part)
                missing -= len(part)
        return b"".join(parts)

    def _exit_reason(self, code: int | None) -> dict:
        if code == -signal.SIGXCPU:
            return {"bad": "timeout", "detail": f"used more than {self.limits.seconds:g} s of CPU"}
        if code is not None and code < 0:
            return {"bad": "crashed", "detail": f"the decoder died of {signal.Signals(-code).name}"}
        return {"bad": "crashed", "detail": f"the decoder process ended with status {code}"}


def _send(requests: socket.socket, task: dict) -> None:
    descriptors: list[int] = []
    try:
        text = json.dumps(opened(task, descriptors)).encode()
        data = FRAME.pack(len(text), 0) + text
        sent = socket.send_fds(requests, [data], descriptors)
        requests.sendall(data[sent:])
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def opened(task: dict, descriptors: list[int]) -> dict:
    """The request as the child gets it: its file is opened here, and appended to ``descriptors``.

    A file that cannot be opened, or is none, is left to the child to report, as one that cannot be read.
    """
    if "batch" in task:
        return {"batch": [opened(one, descriptors) for one in task["batch"]]}
    told = {name: value for name, value in task.items() if name != "path"}
    if "path" not in task:
        return told
    try:
        # a pipe or a device must not block: it is opened without waiting, and then refused
        descriptor = os.open(task["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        return told | {"errno": error.errno}
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return told | {"special": True}
    descriptors.append(descriptor)
    return told | {"file": len(descriptors) - 1}


class Pool:
    """``count`` workers that run a stream of tasks side by side and hand the answers back in order."""

    def __init__(self, count: int, limits: Limits):
        self.count = count
        self._limits = limits
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="sandbox")
        self._local = threading.local()
        self._workers: list[Worker] = []

    def map(self, tasks: Iterable[tuple[Any, dict | None]]) -> Iterator[tuple[Any, dict, bytes]]:
        """Run each (name, task); yields (name, header, payload) in the order of ``tasks``.

        ``tasks`` is read lazily. A task of None stands for itself: it yields an empty header at its place.
        """
        waiting: deque[tuple[Any, Future]] = deque()
        tasks = iter(tasks)
        try:
            while True:
                while len(waiting) < self.count * AHEAD and (item := next(tasks, None)) is not None:
                    waiting.append((item[0], self._threads.submit(self._run, item[1])))
                if not waiting:
                    return
                name, future = waiting.popleft()
                yield (name, *future.result())
        finally:
            for _, future in waiting:
                future.cancel()

    def close(self) -> None:
        """End all workers; running videos are given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._workers):
            worker.kill()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close(kill=True)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, task: dict | None) -> tuple[dict, bytes]:
        if task is None:
            return {}, b""
        if "fetch" in task:
            expect = (task["bytes"], task["content"]) if "content" in task else None
            try:
                with fetched(task["fetch"], expect) as path:
                    return self._run_local({**task, "path": path})
            except BadVideo as bad:
                return {"bad": bad.reason, "detail": bad.detail}, b""
        return self._run_local(task)

    def _run_local(self, task: dict) -> tuple[dict, bytes]:
        worker = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = Worker(self._limits)
            self._workers.append(worker)
        header, payload = worker.run(task)
        if header.get("bad") in ("crashed", "timeout", "memory"):
            # once more in a fresh process: a busy machine must not decide what is in a dataset
            worker.close(kill=True)
            header, payload = worker.run(task)
        return header, payload

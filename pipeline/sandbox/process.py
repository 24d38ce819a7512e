"""The side of the parent: one sandboxed child that answers requests, replaced after each death."""

import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..bounded_files import parse_json
from ..errors import InputError
from ..safe_text import printable
from ..shards.quarantine import REASONS
from .child import FRAME

Sandbox = Literal["require", "auto", "off"]

MAX_HEADER, MAX_PAYLOAD = 16 << 20, 1 << 30  # bytes of an answer
_STARTS = 3  # of a child that dies before it is ready
_START_SECONDS = 120.0  # for the child to import what it needs
# what the child sees of this process's environment: how to find Python's files, no credentials
_KEPT_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_log = logging.getLogger(__name__)
_told = threading.Event()  # what this system lacks has been said


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


class _DiedEarly(RuntimeError):
    """A child ended, or the time was over, before it was ready."""


@dataclass(frozen=True)
class _Child:
    """A running child: the socket that requests go to, and the pipe that answers come from."""

    process: subprocess.Popen
    requests: socket.socket
    answers: int


class SandboxedProcess:
    """One child process; started on first use and again after each death.

    Args:
        module: that the child runs; it calls ``child.serve``.
        limits: what one request may cost.
    """

    def __init__(self, module: str, limits: Limits):
        self.module, self.limits = module, limits
        self._child: _Child | None = None

    def ask(
        self, header: dict, payload: bytes | memoryview = b"", descriptors: Sequence[int] = ()
    ) -> Iterator[tuple[dict, bytes]]:
        """Send a request; yields its answers, as many as are taken.

        Args:
            header: plain JSON values.
            payload: bytes that go with it.
            descriptors: open files that the child gets; they stay open here.

        Yields:
            (header, payload). A child that dies, hangs or runs out of memory gives
            ``{"bad": "crashed" | "timeout" | "memory", "detail": ...}`` and is replaced by the next call.

        Raises:
            InputError: a fence is missing and ``Limits.sandbox`` requires it.
        """
        child = self._child
        if child is None or child.process.poll() is not None:
            child = self._started()
        request = (header, payload, descriptors)
        while True:
            header, payload = self._answer(child, request)
            request = None
            yield header, payload
            if "bad" in header:
                return

    def _answer(
        self, child: _Child, request: tuple[dict, bytes | memoryview, Sequence[int]] | None
    ) -> tuple[dict, bytes]:
        try:
            if request is not None:
                _send(child.requests, *request)
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
            return self._obituary(child.process.returncode), b""
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

    def _started(self) -> _Child:
        """A new child; one that dies before it is ready (memory is short), or is not in time, is started again."""
        for _ in range(_STARTS - 1):
            try:
                return self._start()
            except _DiedEarly:
                continue
        return self._start()

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
                [sys.executable, "-m", self.module, json.dumps(limits)],
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
        except (TimeoutError, EOFError, ValueError) as error:
            self.close(kill=not isinstance(error, EOFError))
            kind = RuntimeError if isinstance(error, ValueError) else _DiedEarly
            raise kind(f"a decoding process did not start (status {process.returncode})") from None
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

    def _obituary(self, code: int | None) -> dict:
        if code == -signal.SIGXCPU:
            return {"bad": "timeout", "detail": f"used more than {self.limits.seconds:g} s of CPU"}
        if code is not None and code < 0:
            return {"bad": "crashed", "detail": f"the decoder died of {signal.Signals(-code).name}"}
        return {"bad": "crashed", "detail": f"the decoder process ended with status {code}"}


def _send(requests: socket.socket, header: dict, payload: bytes | memoryview, descriptors: Sequence[int]) -> None:
    text = json.dumps(header).encode()
    data = FRAME.pack(len(text), len(payload)) + text
    sent = socket.send_fds(requests, [data], list(descriptors))
    requests.sendall(data[sent:])
    if payload:
        requests.sendall(payload)

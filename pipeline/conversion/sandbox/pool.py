"""Persistent sandboxed workers: one video at a time each, a crash or hang charged to the video that caused it."""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

from ...shards.quarantine import BadVideo
from ...sources.tree import fetched
from .worker import FRAME, send

MAX_ANSWER = 1 << 30
AHEAD = 4  # tasks per worker that may be finished but not yet taken: bounds memory behind one slow video


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one video may cost."""

    seconds: float
    """Wall-clock and, separately, CPU seconds."""
    memory_bytes: int
    """Memory beyond what the idle worker maps."""


class Worker:
    """One child process; started on first use and again after each death."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._process: subprocess.Popen | None = None

    def run(self, task: dict) -> tuple[dict, bytes]:
        """Give ``task`` to the child and wait for its answer.

        Returns:
            ``run_task``'s (header, payload). A child that dies, hangs or runs out of memory gives
            ``{"bad": "crashed" | "timeout" | "memory", "detail": ...}`` and is replaced by the next call.
        """
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        requests, answers = _pipes(process)
        try:
            send(requests, task)
            header, payload = self._receive(answers, time.monotonic() + self.limits.seconds)
        except TimeoutError:
            self.close(kill=True)
            return {"bad": "timeout", "detail": f"not done after {self.limits.seconds:g} s"}, b""
        except (EOFError, BrokenPipeError, ValueError):
            try:
                process.wait(timeout=1)  # what it died of is not to be the signal that clears it away
            except subprocess.TimeoutExpired:
                pass
            self.close(kill=True)
            return self._obituary(process.returncode), b""
        if header.get("bad") in ("memory", "crashed"):  # it leaves after saying so
            self.close()
        return header, payload

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when there is none."""
        return None if self._process is None else self._process.pid

    def kill(self) -> None:
        """End the child at once; a ``run`` that waits for it returns. For use from another thread."""
        if (process := self._process) is not None:
            process.kill()

    def close(self, kill: bool = False) -> None:
        """End the child; it is never left behind."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        requests, answers = _pipes(process)
        try:
            requests.close()
        except BrokenPipeError:
            pass
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        answers.close()

    def _start(self) -> subprocess.Popen:
        self.close()
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MALLOC_ARENA_MAX="1")
        limits = {"seconds": self.limits.seconds, "memory_bytes": self.limits.memory_bytes}
        process = subprocess.Popen(
            [sys.executable, "-m", "unstill.pipeline.conversion.sandbox.worker", json.dumps(limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders chatter; what matters comes back as a reason
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the converter alone, which then ends its workers
        )
        os.set_blocking(_pipes(process)[1].fileno(), False)
        self._process = process
        return process

    def _receive(self, answers: IO[bytes], deadline: float) -> tuple[dict, bytes]:
        size, payload_size = FRAME.unpack(self._read(answers, FRAME.size, deadline))
        if size > MAX_ANSWER or payload_size > MAX_ANSWER:
            raise ValueError("a worker's answer is larger than any real one")
        return json.loads(self._read(answers, size, deadline)), self._read(answers, payload_size, deadline)

    def _read(self, answers: IO[bytes], count: int, deadline: float) -> bytes:
        pipe = answers.fileno()
        parts, missing = [], count
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while missing:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(pipe, min(missing, 1 << 20))
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


def _pipes(process: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    """What the child reads, and what it writes."""
    assert process.stdin is not None and process.stdout is not None, "it is started with pipes"
    return process.stdin, process.stdout


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

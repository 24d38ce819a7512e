"""Workers that convert, check or show videos: one video at a time each, a crash or hang charged to the video that
caused it."""

import os
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ...sandbox.process import Limits, SandboxedProcess
from ...shards.quarantine import BadVideo
from ...sources.tree import fetched

_WORKER = "unstill.pipeline.conversion.sandbox.worker"
AHEAD = 4  # tasks per worker that may be finished but not yet taken: bounds memory behind one slow video


class Worker(SandboxedProcess):
    """A child that runs ``run_task`` and ``show``."""

    def __init__(self, limits: Limits):
        super().__init__(_WORKER, limits)

    def run(self, task: dict) -> tuple[dict, bytes]:
        """Give ``task`` to the child and wait for its answer.

        Args:
            task: see ``run_task``, but with ``path`` in place of ``file``: it is opened here, the child cannot.

        Returns:
            ``run_task``'s (header, payload), or what ``SandboxedProcess.ask`` says of a child that died.

        Raises:
            InputError: a fence is missing and ``Limits.sandbox`` requires it.
        """
        return next(self.stream(task))

    def stream(self, task: dict) -> Iterator[tuple[dict, bytes]]:
        """Give ``task`` to the child; yields its answers, as many as are taken, each as ``run`` returns it."""
        descriptors: list[int] = []
        try:
            yield from self.ask(opened(task, descriptors), descriptors=descriptors)
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

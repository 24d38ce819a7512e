"""Whole videos as RGB pictures, decoded in the sandbox: untrusted videos for ``unstill predict`` and ``unstill ood``.

with shown_frames(path) as (pictures, rate): ...        # uint8 (H, W, 3) each
count_packets(path)                                     # mostly the number of frames, without decoding
"""

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...sandbox.process import Limits, Sandbox
from .pool import Worker

LIMITS = Limits(seconds=600.0, memory_bytes=2 << 30)
_of_thread = threading.local()  # its workers; a worker ends with the thread that started it


class Shown:
    """Pictures as they come.

    Attributes:
        frames: number of frames in the video; None until the last one has come.
    """

    def __init__(self, answers: Iterator[tuple[dict, bytes]]):
        self._answers = answers
        self.frames: int | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        for header, payload in self._answers:
            if "shape" in header:
                yield _picture(header, payload)
            elif "frames" in header:
                self.frames = int(header["frames"])


def count_packets(path: Path, sandbox: Sandbox = "auto") -> int:
    """Packets of a video. Most formats have one for each frame, but VP9 hides some, and fields may come one by one.

    Raises:
        InputError: as ``shown_frames``.
    """
    for header, _ in _answers(path, {"packets": True}, sandbox):
        if "packets" in header:
            return int(header["packets"])
    return 0


@contextmanager
def shown_frames(
    path: Path, wanted: Iterable[int] | None = None, sandbox: Sandbox = "auto"
) -> Iterator[tuple[Shown, Fraction]]:
    """(pictures, frames per second).

    Each picture is uint8 (H, W, 3): upright, with square pixels, deinterlaced, without HDR.

    Args:
        path: the video.
        wanted: numbers of the frames that are delivered, in ascending order; all when None.
        sandbox: see ``Limits``.

    Raises:
        InputError: no such file, not a video of an allowed kind, damaged, or cut off; also while frames are taken. Or a
            fence is missing that ``sandbox`` requires.
    """
    answers = _answers(path, {"show": {"wanted": None if wanted is None else sorted(set(wanted))}}, sandbox)
    try:
        header, _ = next(answers)
        yield Shown(answers), _rate(header)
    finally:
        answers.close()


def _answers(path: Path, task: dict, sandbox: Sandbox) -> Generator[tuple[dict, bytes], None, None]:
    workers = _of_thread.__dict__.setdefault("workers", {})
    worker = workers.get(sandbox) or workers.setdefault(sandbox, Worker(replace(LIMITS, sandbox=sandbox)))
    if not path.exists():
        raise InputError(f"{path}: cannot be read (No such file or directory)")
    done = False
    try:
        for header, payload in worker.stream({"path": str(path), **task}):
            if "bad" in header:
                done = header["bad"] not in ("crashed", "timeout", "memory")
                raise InputError(f"{path}: cannot be used, {header['bad']}: {header['detail']}")
            done = "frames" in header or "packets" in header
            yield header, payload
            if done:  # the last one
                return
    finally:
        if not done:  # answers that were not taken must not be taken for those to the next request
            worker.close(kill=True)


def _rate(header: dict) -> Fraction:
    try:
        over, under = header["rate"]
        return Fraction(int(over), int(under)) if 0 < over / under < 10_000 else Fraction(25)
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return Fraction(25)


def _picture(header: dict, payload: bytes) -> np.ndarray:
    try:
        height, width, _ = header["shape"]
        return np.frombuffer(payload, np.uint8).reshape(int(height), int(width), 3)
    except (ValueError, TypeError) as error:
        raise InputError(f"a picture is not what the decoder says ({error})") from None

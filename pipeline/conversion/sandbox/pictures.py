"""Whole videos as RGB pictures, decoded in the sandbox: untrusted videos for ``unstill predict`` and ``unstill ood``.

with shown_frames(path) as (pictures, rate): ...        # uint8 (H, W, 3) each
count_frames(path)
"""

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...sandbox.process import Limits
from .pool import Worker

LIMITS = Limits(seconds=600.0, memory_bytes=2 << 30)
_of_thread = threading.local()  # its worker; a worker ends with the thread that started it


def count_frames(path: Path) -> int:
    """Frames of a video; all of it is decoded, none of it is kept.

    Raises:
        InputError: no such file, not a video of an allowed kind, damaged, or cut off.
    """
    for header, _ in _answers(path, []):
        if "frames" in header:
            return int(header["frames"])
    return 0


@contextmanager
def shown_frames(path: Path, wanted: Iterable[int] | None = None) -> Iterator[tuple[Iterator[np.ndarray], Fraction]]:
    """(pictures, frames per second).

    Each picture is uint8 (H, W, 3): upright, with square pixels, deinterlaced, without HDR.

    Args:
        path: the video.
        wanted: numbers of the frames that are delivered, in ascending order; all when None.

    Raises:
        InputError: no such file, not a video of an allowed kind, damaged, or cut off; also while frames are taken.
    """
    answers = _answers(path, None if wanted is None else sorted(set(wanted)))
    try:
        header, _ = next(answers)
        yield (_picture(header, payload) for header, payload in answers if "shape" in header), _rate(header)
    finally:
        answers.close()


def _answers(path: Path, wanted: list[int] | None) -> Generator[tuple[dict, bytes], None, None]:
    worker = getattr(_of_thread, "worker", None)
    if worker is None:
        worker = _of_thread.worker = Worker(LIMITS)
    if not path.exists():
        raise InputError(f"{path}: cannot be read (No such file or directory)")
    done = False
    try:
        for header, payload in worker.stream({"path": str(path), "show": {"wanted": wanted}}):
            if "bad" in header:
                done = header["bad"] not in ("crashed", "timeout", "memory")
                raise InputError(f"{path}: cannot be used, {header['bad']}: {header['detail']}")
            done = "frames" in header
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

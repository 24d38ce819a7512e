"""Decoding in processes of their own, for ``--loader.isolate``: a decoder that crashes or is taken over is not ours.

A child gets the packets of one clip through a socket and puts its frames into memory that both see. It is fenced like
the converter's workers (``sandbox/fence.py``): it can open no file, no connection, and no other process. A child that
dies or hangs is replaced; the clip is tried once more in another one, and counts as a bad clip when that dies, too.
"""

import fcntl
import mmap
import os
import threading
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..sandbox.process import Limits, SandboxedProcess
from .frame_decoder import CannotDecode, SliceTable

LIMITS = Limits(seconds=60.0, memory_bytes=1 << 30)  # of one clip
_CHILD = "unstill.pipeline.loading.decoding_child"
_FREE_DEATHS, _CLIPS_PER_DEATH = 32, 100
_DIED = ("crashed", "timeout", "memory")


class FrameDecoder(Protocol):
    """What decodes the clips of one thread: ``KeptDecoders`` here, ``ChildDecoders`` in a process of its own."""

    def clip(
        self,
        codec: str,
        mp4: np.ndarray,
        table: SliceTable,
        frames: np.ndarray,
        picture: tuple[int, int],
        region: tuple[int, int, int, int],
        out: np.ndarray,
    ) -> None:
        """See ``KeptDecoders.clip``."""
        ...

    def forget(self) -> None:
        """After an error, start anew."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Isolation:
    """Makes decoders in processes of their own, and sees to it that they do not die without end."""

    def __init__(self, limits: Limits = LIMITS):
        self.limits = limits
        self._lock = threading.Lock()
        self._deaths = self._clips = 0

    def decoder(self, size: int) -> "ChildDecoders":
        """A new one, for frames of ``size`` pixels a side; its child starts with its first clip."""
        return ChildDecoders(size, self)

    def count(self, died: bool) -> None:
        """Count a clip.

        Raises:
            InputError: more children have died than damaged clips explain: 32, and one for every 100 clips.
        """
        with self._lock:
            self._clips += 1
            self._deaths += died
            if self._deaths > _FREE_DEATHS + self._clips // _CLIPS_PER_DEATH:
                raise InputError(
                    f"--loader.isolate: {self._deaths} decoding processes died on {self._clips} clips; run `unstill "
                    "verify` on the dataset, and see whether memory is short on this machine"
                )


class ChildDecoders:
    """``KeptDecoders`` in a child.

    Args:
        size: side of the delivered frames, pixels.
        isolation: what counts its deaths.
    """

    def __init__(self, size: int, isolation: Isolation):
        self._size, self._isolation = size, isolation
        self._process = SandboxedProcess(_CHILD, isolation.limits)
        self._frames: tuple[int, mmap.mmap] | None = None  # descriptor and mapping of the memory that is shared
        self._known_by: int | None = None  # the child that has it

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when there is none."""
        return self._process.pid

    def clip(
        self,
        codec: str,
        mp4: np.ndarray,
        table: SliceTable,
        frames: np.ndarray,
        picture: tuple[int, int],
        region: tuple[int, int, int, int],
        out: np.ndarray,
    ) -> None:
        """See ``KeptDecoders.clip``.

        Raises:
            CannotDecode: the clip is damaged, or the child died of it.
            InputError: too many children died.
        """
        shared = self._memory(out.nbytes)
        descriptors = [] if self._known_by == self._process.pid and self._known_by is not None else [shared[0]]
        description, data = table.track.description, mp4[len(mp4) - sum(table.sizes) :]
        task = {"codec": codec, "size": self._size, "description": len(description), "sizes": table.sizes}
        task |= {"shown": [int(n) for n in table.shown], "frames": frames.tolist(), "picture": picture}
        task["region"] = region
        answer, _ = next(self._process.ask(task, b"".join((description, data.data)), descriptors))
        died = answer.get("bad") in _DIED
        self._known_by = None if died else self._process.pid
        self._isolation.count(died)
        if "bad" in answer:
            raise CannotDecode(f"{answer['bad']}: {answer['detail']}" if died else answer["detail"])
        out[:] = np.frombuffer(shared[1], np.uint8, out.size).reshape(out.shape)

    def forget(self) -> None:
        """Nothing to do: a child starts anew by itself."""

    def close(self) -> None:
        """End the child."""
        self._process.close(kill=True)
        if self._frames is not None:
            os.close(self._frames[0])
            self._frames = None

    def _memory(self, size: int) -> tuple[int, mmap.mmap]:
        """Memory of at least ``size`` bytes that a child can be given; no child can make it smaller."""
        if self._frames is None or len(self._frames[1]) < size:
            if self._frames is not None:
                os.close(self._frames[0])
            descriptor = os.memfd_create("clip", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(descriptor, size)
            # without this a child could cut it off, and reading beyond its end would kill this process
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._frames = descriptor, mmap.mmap(descriptor, size)
            self._known_by = None
        return self._frames

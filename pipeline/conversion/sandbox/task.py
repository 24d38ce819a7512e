"""What the sandboxed child does for one request: check the source, transcode it, describe the result."""

import io
import os
from collections.abc import Callable
from typing import BinaryIO, cast

import av.error
import numpy as np

from ...media.source import first_line
from ...media.whole_video import packet_count, pictures
from ...shards.contract import check_video
from ...shards.quarantine import BadVideo
from ...shards.video_format import VideoFormat
from ..content_hash import block_digest, content_sha256
from ..transcode import Transcoded, probe, transcode


def run_task(task: dict, descriptors: list[int]) -> tuple[dict, bytes]:
    """Run one request.

    Args:
        task: to convert: ``file`` (see ``_source``), ``offset``, ``bytes``, ``content``, ``modified`` (see
            ``PlannedVideo``), ``start``, ``end`` (seconds or None), ``recipe``. To check a video in a shard: ``file``,
            ``offset``, ``bytes``, and ``expect`` with ``frames``, ``fps_milli``, ``gop``, ``width``, ``height``,
            ``codec`` and ``layers``. To look at a source's header: ``file``, ``offset``, ``bytes`` (None is to the
            end), ``probe`` true; ``compare`` true asks for a digest of some of its bytes, too. To count its packets:
            ``file``, ``packets`` true.
            Several of these at once: ``batch``, a list of them, answered by ``answers``.
        descriptors: open files that came with the request.

    Returns:
        (header, payload): the description and the MP4; or ``{"bad": reason, "detail": text}`` and nothing.

    Raises:
        MemoryError: the memory limit was hit.
    """
    if "batch" in task:
        return {"answers": [run_task(one, descriptors)[0] for one in task["batch"]]}, b""
    content: dict[str, str] = {}
    try:
        with _source(task, descriptors) as file:
            if task.get("compare"):
                content = {"content": block_digest(file, 0, os.fstat(file.fileno()).st_size)}
            if "expect" in task:
                return _check_stored(file, task), b""
            if task.get("packets"):
                return {"packets": packet_count(file)}, b""
            if task.get("probe"):
                return _probe(file, task) | content, b""
            source, sha256 = _check_source(file, task)
            done = transcode(source, VideoFormat(**task["recipe"]), task["start"], task["end"])
    except FileNotFoundError:
        bad = BadVideo("missing", "the file has disappeared since the plan was made")
    except BadVideo as error:
        bad = error
    except av.error.FFmpegError as error:
        bad = BadVideo("corrupt", f"cannot be read ({first_line(error)})")
    except OSError as error:
        bad = BadVideo("unreadable", f"reading it failed: {os.strerror(error.errno or 0)}")
    else:
        return _described(done, sha256), done.mp4
    return {"bad": bad.reason, "detail": bad.detail, **content}, b""


def _described(done: Transcoded, sha256: str) -> dict:
    """What the manifest says of a transcoded video."""
    facts = done.facts
    return {
        "frames": facts.frames,
        "fps": [facts.fps.numerator, facts.fps.denominator],
        "width": facts.width,
        "height": facts.height,
        "codec": facts.codec,
        "gop": facts.gop,
        "layers": facts.layers,
        "init_bytes": facts.init_bytes,
        "offsets": facts.offsets.tolist(),
        "source": {
            "codec": done.source.codec,
            "width": done.source.width,
            "height": done.source.height,
            "fps": round(done.source.fps, 3),
            "sha256": sha256,
        },
        "notes": list(done.notes),
    }


def show(task: dict, descriptors: list[int], answer: Callable[[dict, bytes], None]) -> dict:
    """Send pictures as they are decoded; returns what is said after the last one.

    Args:
        task: ``file`` as in ``run_task``, and ``show`` with ``wanted``: numbers of frames, or None for all.
        descriptors: open files that came with the request.
        answer: called first with the frames per second (``rate``), then with the ``shape`` and bytes of each picture.

    Returns:
        ``frames``, the number of frames in the video; or ``{"bad": reason, "detail": text}``.

    Raises:
        MemoryError: the memory limit was hit.
    """
    wanted = task["show"]["wanted"]
    count = 0
    try:
        with _source(task, descriptors) as file:
            for rate, picture in pictures(file, None if wanted is None else set(wanted)):
                if not count:
                    answer({"rate": [rate.numerator, rate.denominator]}, b"")
                count += 1
                if picture is not None:
                    answer({"shape": picture.shape}, np.ascontiguousarray(picture).tobytes())
    except BadVideo as bad:
        return {"bad": bad.reason, "detail": bad.detail}
    except av.error.FFmpegError as error:
        return {"bad": "corrupt", "detail": f"cannot be decoded ({first_line(error)})"}
    except OSError as error:
        return {"bad": "unreadable", "detail": f"cannot be read ({os.strerror(error.errno or 0)})"}
    return {"frames": count} if count else {"bad": "no_frames", "detail": "a video without frames"}


def _source(task: dict, descriptors: list[int]) -> BinaryIO:
    """The opened source: ``file`` is a position in ``descriptors``, or ``errno`` says why it could not be opened.

    Raises:
        OSError: it could not be opened.
        BadVideo: ``special``: it is no plain file, but a pipe, a device or a folder.
    """
    if "errno" in task:
        raise OSError(task["errno"], os.strerror(task["errno"]))
    if task.get("special"):
        raise BadVideo("unreadable" if task.get("probe") else "changed", "not a plain file")
    return open(descriptors[task["file"]], "rb", closefd=False)


def _check_source(file: BinaryIO, task: dict) -> tuple[BinaryIO, str]:
    """The planned bytes as a file of their own, and their SHA-256; after it they lie in the system's cache.

    Raises:
        BadVideo: they are no longer those of the plan.
    """
    status = os.fstat(file.fileno())
    if not task["offset"] and status.st_size != task["bytes"]:
        raise BadVideo("changed", f"{status.st_size} bytes, {task['bytes']} when the plan was made")
    if task["bytes"] == 0:
        raise BadVideo("empty", "zero bytes")
    if not task["content"].startswith("remote:"):  # a remote one's version was compared when it was fetched
        if task["modified"] not in (None, int(status.st_mtime)):
            raise BadVideo("changed", "modified since the plan was made")
        if block_digest(file, task["offset"], task["bytes"]) != task["content"]:
            raise BadVideo("changed", "other content than when the plan was made")
    size, sha256 = content_sha256(file, task["offset"], task["bytes"])
    if size != task["bytes"]:
        raise BadVideo("changed", f"{size} bytes, {task['bytes']} when the plan was made")
    file.seek(0)
    return _part(file, task["offset"], task["bytes"]), sha256


def _part(file: BinaryIO, offset: int, length: int) -> BinaryIO:
    return cast(BinaryIO, Window(file, offset, length)) if offset else file


class Window(io.RawIOBase):
    """``length`` bytes of an open file from ``offset``, as a file."""

    def __init__(self, file: BinaryIO, offset: int, length: int):
        self._file, self._offset, self._length, self._position = file, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:
        count = max(0, min(len(buffer), self._length - self._position))
        self._file.seek(self._offset + self._position)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _check_stored(file, task: dict) -> dict:
    file.seek(task["offset"])
    expect = task["expect"]
    facts = check_video(file.read(task["bytes"]), gop=expect["gop"], frames=expect["frames"], layers=expect["layers"])
    found = {"fps_milli": round(facts.fps * 1000), "width": facts.width, "height": facts.height, "codec": facts.codec}
    for name, value in found.items():
        if value != expect[name]:
            raise BadVideo("output", f"{name} is {value}, the sample's tables say {expect[name]}")
    return {}


def _probe(file: BinaryIO, task: dict) -> dict:
    size = task["bytes"] if task["bytes"] is not None else os.fstat(file.fileno()).st_size
    if size == 0:
        raise BadVideo("empty", "zero bytes")
    return {"bytes": size, **probe(_part(file, task["offset"], size))}

"""What the sandboxed child does for one request: check the source, transcode it, describe the result."""

import hashlib
import os

from .contract import check_video
from .quarantine import BadVideo
from .recipe import Recipe
from .transcode import transcode


def run_task(task: dict) -> tuple[dict, bytes]:
    """Run one request.

    Args:
        task: to convert: ``path``, ``bytes``, ``sha256`` (of the planned source), ``start``, ``end`` (seconds or None),
            ``recipe``. To check a video inside a shard: ``path`` of the shard, ``offset``, ``bytes``, and ``expect``
            with ``frames``, ``fps_milli``, ``gop``, ``width``, ``height``, ``codec``.

    Returns:
        (header, payload): the description and the MP4; or ``{"bad": reason, "detail": text}`` and nothing.

    Raises:
        MemoryError: the memory limit was hit.
    """
    try:
        with open(task["path"], "rb") as file:
            if "expect" in task:
                return _check_stored(file, task), b""
            _check_source(file, task)
            done = transcode(file, Recipe(**task["recipe"]), task["start"], task["end"])
            if os.fstat(file.fileno()).st_size != task["bytes"]:
                raise BadVideo("changed", "the file changed while it was read")
    except FileNotFoundError:
        return {"bad": "missing", "detail": "the file has gone since the plan was made"}, b""
    except BadVideo as bad:
        return {"bad": bad.reason, "detail": bad.detail}, b""
    except OSError as error:
        return {"bad": "unreadable", "detail": f"reading it failed: {os.strerror(error.errno or 0)}"}, b""
    facts = done.facts
    header = {
        "frames": facts.frames,
        "fps": [facts.fps.numerator, facts.fps.denominator],
        "width": facts.width,
        "height": facts.height,
        "codec": facts.codec,
        "gop": facts.gop,
        "init_bytes": facts.init_bytes,
        "offsets": facts.offsets.tolist(),
        "source": {
            "codec": done.source_codec,
            "width": done.source_width,
            "height": done.source_height,
            "fps": round(done.source_fps, 3),
        },
    }
    return header, done.mp4


def _check_source(file, task: dict) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != task["bytes"]:
        raise BadVideo("changed", f"{size} bytes, {task['bytes']} when the plan was made")
    if size == 0:
        raise BadVideo("empty", "zero bytes")
    if hashlib.file_digest(file, "sha256").hexdigest() != task["sha256"]:
        raise BadVideo("changed", "other content than when the plan was made")
    file.seek(0)


def _check_stored(file, task: dict) -> dict:
    file.seek(task["offset"])
    expect = task["expect"]
    facts = check_video(file.read(task["bytes"]), gop=expect["gop"], frames=expect["frames"])
    found = {"fps_milli": round(facts.fps * 1000), "width": facts.width, "height": facts.height, "codec": facts.codec}
    for name, value in found.items():
        if value != expect[name]:
            raise BadVideo("output", f"{name} is {value}, the sample's tables say {expect[name]}")
    return {}

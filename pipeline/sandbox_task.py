"""What the sandboxed child does for one request: check the source, transcode it, describe the result."""

import hashlib
import os

from .quarantine import BadVideo
from .recipe import Recipe
from .transcode import transcode


def run_task(task: dict) -> tuple[dict, bytes]:
    """Run one request.

    Args:
        task: ``path``, ``bytes``, ``sha256`` (of the planned source), ``start``, ``end`` (seconds or None), ``recipe``.

    Returns:
        (header, payload): the description and the MP4; or ``{"bad": reason, "detail": text}`` and nothing.

    Raises:
        MemoryError: the memory limit was hit.
    """
    try:
        with open(task["path"], "rb") as file:
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

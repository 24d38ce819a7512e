"""Which datasets this user converted or verified on this machine: a mark for each, bound to the manifest's SHA-256.

A dataset that somebody else made can be consistent in all its checksums and still be made to harm a decoder; `unstill
verify` decodes all of it in a sandbox, training decodes it in its own process.
"""

import contextlib
import hashlib
import os
import re
from pathlib import Path

from ..bounded_files import JSON_BYTES, read_bounded
from ..errors import InputError

MANIFEST = "dataset.json"


def manifest_digest(folder: Path) -> str | None:
    """SHA-256 of a dataset's manifest; None where there is none."""
    try:
        return hashlib.sha256(read_bounded(folder / MANIFEST, JSON_BYTES)).hexdigest()
    except (OSError, InputError):
        return None


def mark_verified(folder: Path) -> None:
    """Remember that all of this dataset was decoded here without a fault; without a manifest there is nothing to say.

    A home that cannot be written costs the mark, nothing else.
    """
    digest = manifest_digest(folder)
    if digest is None:
        return
    with contextlib.suppress(OSError, RuntimeError):
        marks = _marks()
        marks.mkdir(mode=0o700, parents=True, exist_ok=True)
        if marks.stat().st_uid == os.geteuid():
            os.close(os.open(marks / digest, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def is_verified(digest: str | None) -> bool:
    """Whether ``mark_verified`` was called for the dataset whose manifest has this digest, by this user."""
    if digest is None or not re.fullmatch("[0-9a-f]{64}", digest):
        return False
    try:
        mark = os.lstat(_marks() / digest)
    except (OSError, RuntimeError):
        return False
    return mark.st_uid == os.geteuid()


def _marks() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "unstill" / "verified"

"""What identifies a source: the length and SHA-256 of its bytes."""

import hashlib
from typing import BinaryIO


def content_sha256(file: BinaryIO, offset: int, length: int | None) -> tuple[int, str]:
    """(bytes, sha256) of ``length`` bytes from ``offset`` of an open file; None is to its end."""
    if offset == 0 and length is None:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[reportArgumentType]  (wants more than it uses)
        return file.tell(), digest
    file.seek(offset)
    digest, done = hashlib.sha256(), 0
    while chunk := file.read(1 << 20 if length is None else min(length - done, 1 << 20)):
        digest.update(chunk)
        done += len(chunk)
    return done, digest.hexdigest()

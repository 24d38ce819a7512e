"""What identifies a source: the length and SHA-256 of its bytes."""

import hashlib
from typing import BinaryIO


def content_sha256(file: BinaryIO, offset: int, length: int | None) -> tuple[int, str]:
    """(bytes, sha256) of ``length`` bytes from ``offset`` of an open file; None is to its end."""
    if offset == 0 and length is None:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
    file.seek(offset)
    digest, left = hashlib.sha256(), length
    while left and (chunk := file.read(min(left, 1 << 20))):
        digest.update(chunk)
        left -= len(chunk)
    return length - left, digest.hexdigest()

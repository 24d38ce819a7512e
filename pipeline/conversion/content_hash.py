"""What identifies a source: its length with some of its bytes, which is quick; and the SHA-256 of all of them."""

import hashlib
from typing import BinaryIO

BLOCK, BLOCKS = 4096, 16  # bytes of a block, and how many are looked at
DIGESTED_WHOLE = BLOCK * BLOCKS  # bytes up to which `block_digest` looks at all of them


def block_digest(file: BinaryIO, offset: int, length: int) -> str:
    """Hash of the length and of 16 blocks, from the first to the last one, of a part of an open file.

    Args:
        file: seekable.
        offset, length: the part, in bytes.
    """
    digest = hashlib.sha256(b"%d " % length)
    if length <= DIGESTED_WHOLE:
        places, size = [0], length
    else:
        places, size = [k * (length - BLOCK) // (BLOCKS - 1) for k in range(BLOCKS)], BLOCK
    for place in places:
        file.seek(offset + place)
        digest.update(file.read(size))
    return digest.hexdigest()


def content_sha256(file: BinaryIO, offset: int, length: int | None) -> tuple[int, str]:
    """(bytes, sha256) of ``length`` bytes from ``offset`` of an open file; None is to its end."""
    if offset == 0 and length is None:
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[reportArgumentType]  (wants more than it uses)
        return file.tell(), digest
    file.seek(offset)
    digest, done = hashlib.sha256(), 0
    while chunk := file.read(1 << 20 if length is None else min(length - done, 1 << 20)):
        digest.update(chunk)
        done += len(chunk)
    return done, digest.hexdigest()

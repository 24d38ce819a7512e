"""Reads untrusted tar archives: plain ustar only, every size checked against the file, nothing ever unpacked.

The general tar readers accept compressed archives (65 KB may hold 64 MB), links, devices and sizes beyond the end of
the file, and end silently at a damaged header. This one names the place and stops.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

BLOCK = 512
MAX_MEMBER = 256 << 20  # bytes; the longest videos of a shard are a tenth of it
MAX_MEMBERS = 4_000_000
MAX_EXTENSION = 1 << 20  # bytes of a header that extends the next one
_EXTENSIONS = (b"x", b"g", b"L", b"K")  # PAX for the next member, PAX for all; GNU: long name, long target of a link
KEY = re.compile(r"[A-Za-z0-9_-]{1,200}")
EXTENSIONS = ("mp4", "gops", "cls", "json")  # the members of a sample, in their order

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_KINDS = {b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"5": "folder", b"6": "pipe"}


class Malformed(Exception):
    """The archive cannot be read on from byte ``offset``."""

    def __init__(self, offset: int, problem: str):
        super().__init__(f"byte {offset}: {problem}")
        self.offset, self.problem = offset, problem


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        header: byte offset of its header.
        offset, size: where its content is.
        name: as stored; not to be trusted, not to be used as a path.
        kind: "" for a plain file, otherwise what it is instead ("symbolic link").
    """

    header: int
    offset: int
    size: int
    name: str
    kind: str

    @property
    def key(self) -> str:
        """The name up to its first dot, as WebDataset splits it."""
        return self.name.partition(".")[0]

    @property
    def extension(self) -> str:
        """The name after its first dot."""
        return self.name.partition(".")[2]


def members(file: BinaryIO, foreign: bool = False, start: int = 0) -> Iterator[Member]:
    """The members of a plain tar, in order; contents are not read.

    Args:
        file: open for reading.
        foreign: made by another program: names of more than 100 bytes may be written as PAX or GNU tar do, and members
            may be of any size that the file has room for.
        start: byte offset of the first header.

    Raises:
        Malformed: at the first header that is damaged, lies about its size, or belongs to no plain tar; or when the
            archive's end marker is missing.
    """
    length = os.fstat(file.fileno()).st_size
    position, count = start, 0
    long_name: bytes | None = None
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if position == 0:
            _refuse_compressed(header)
        if len(header) < BLOCK:
            raise Malformed(position, f"the archive ends without its end marker (the file has {length} bytes)")
        if header == bytes(BLOCK):
            _check_end(file, position, length)
            return
        member = _parse(header, position, length, math.inf if foreign else MAX_MEMBER)
        if foreign and header[156:157] in _EXTENSIONS:
            long_name = _long_name(file, member, header[156:157]) or long_name
        else:
            yield member if long_name is None else replace(member, name=long_name.decode("utf-8", "backslashreplace"))
            long_name = None
        count += 1
        if count > MAX_MEMBERS:
            raise Malformed(position, f"more than {MAX_MEMBERS} members")
        position = member.offset + -(-member.size // BLOCK) * BLOCK


def _long_name(file: BinaryIO, member: Member, flag: bytes) -> bytes | None:
    """The name of the next member, from the header that extends it; None when this header says something else.

    Raises:
        Malformed: it is damaged, or gives the next member another size than that member's own header.
    """
    if member.size > MAX_EXTENSION:
        raise Malformed(member.header, f"an extended header of {member.size} bytes")
    data = read_member(file, member)
    if flag != b"x":
        return data.rstrip(b"\0") if flag == b"L" else None
    name = None
    while data:
        size, _, _ = data.partition(b" ")
        if not size.isdigit() or not 0 < int(size) <= len(data):
            raise Malformed(member.header, "a damaged extended header")
        record, data = data[len(size) + 1 : int(size) - 1], data[int(size) :]
        key, _, value = record.partition(b"=")
        if key == b"size":
            raise Malformed(member.header, "a member of 8 GiB or more")
        name = value if key == b"path" else name
    return name


def read_member(file: BinaryIO, member: Member) -> bytes:
    """The content of a member.

    Raises:
        Malformed: the file has become shorter meanwhile.
    """
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) < member.size:
        raise Malformed(member.offset, f"{len(data)} of {member.size} bytes are there")
    return data


def _refuse_compressed(start: bytes) -> None:
    if not start:
        raise Malformed(0, "the file is empty")
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise Malformed(0, f"a {name} archive; only plain tar is read")


def _parse(header: bytes, position: int, length: int, largest: float) -> Member:
    if header[257:263] not in (b"ustar\0", b"ustar "):
        raise Malformed(position, "no tar header here")
    stored = _octal(header[148:156])
    if stored != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise Malformed(position, "damaged tar header (its checksum does not fit)")
    size = _octal(header[124:136])
    if size is None:
        raise Malformed(position, "tar header without a plain size")
    flag = header[156:157]
    kind = "" if flag in (b"0", b"\0") else _KINDS.get(flag, f"member of type {flag!r}")
    if kind in _KINDS.values():
        size = 0  # these have no content, whatever the header says
    left = length - position - BLOCK
    if size > left:
        raise Malformed(position, f"claims {size} bytes, {left} are left in the file")
    if size > largest:
        raise Malformed(position, f"claims {size} bytes, at most {largest} are allowed")
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    if prefix:
        name = prefix + b"/" + name
    return Member(position, position + BLOCK, size, name.decode("utf-8", "backslashreplace"), kind)


def _octal(field: bytes) -> int | None:
    text = field.strip(b"\0 ")
    return int(text, 8) if text and re.fullmatch(rb"[0-7]+", text) else None


def _check_end(file: BinaryIO, position: int, length: int) -> None:
    """After a zero block only zeros may follow, at least one more block of them."""
    if length - position < 2 * BLOCK:
        raise Malformed(position, "the archive's end marker is cut off")
    while chunk := file.read(1 << 20):
        if chunk.count(0) != len(chunk):
            raise Malformed(position, "data after the archive's end marker")

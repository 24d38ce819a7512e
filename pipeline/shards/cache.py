"""Datasets that live elsewhere, read through a local folder of bounded size.

    s3://bucket/kinetics/train  ->  CACHE/<hash of the address>/{dataset.json, index.safetensors, shards/00000.tar, ...}

A shard is fetched completely when a clip first needs it, checked against the SHA-256 in ``dataset.json`` before it gets
its name, and the least recently used shards make room. Processes on one machine share the folder. Addresses go to
fsspec (``pip install 'unstill[s3]'`` for s3, ``gcsfs`` for gs, ...); only plain addresses of known schemes are
accepted, never a chain of them or a command.
"""

import fcntl
import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..atomic_files import AtomicFile
from ..bounded_files import parse_json
from ..errors import InputError
from .index import INDEX_NAME
from .ranges import RangeCache

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "http", "https", "hf", "file", "memory")
_CHUNK = 8 << 20  # bytes per read
_TRIES = 3
_MAX_TEXT = 256 << 20  # bytes of dataset.json, 100 bytes a shard: more is not a manifest
_MAX_INDEX = 64 << 30  # bytes of index.safetensors: 70 a sample and 8 a fragment

_log = logging.getLogger(__name__)


def remote_address(dataset: str | Path) -> str | None:
    """The address, if ``dataset`` is one (a ``Path`` has lost one of its slashes), else None.

    Raises:
        InputError: an address that is not of a known scheme.
    """
    text = str(dataset)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", text, re.DOTALL)
    if match is None or Path(text).exists():
        return None
    scheme, rest = match.groups()
    if scheme not in SCHEMES or "::" in text or not rest.startswith("/") or any(c in text for c in "\n\r\0"):
        raise InputError(
            f"{text!r}: not a folder, and not an address that starts with one of {', '.join(SCHEMES)} and ://"
        )
    rest = rest.lstrip("/")
    return f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"


class ShardCache:
    """A local folder in front of a remote dataset. Safe to use from many threads and processes.

    Args:
        address: from ``remote_address``.
        folder: where to keep shards; shared by all datasets.
        max_bytes: bound on the shards of this dataset that are kept; the largest shard must fit.

    Raises:
        InputError (all methods): the address cannot be read, or what came is not what the manifest says.
    """

    def __init__(self, address: str, folder: Path, max_bytes: int):
        import fsspec  # comes with torch; imported here because only remote datasets need it

        self.address, self.max_bytes = address, max_bytes
        self.root = Path(folder) / hashlib.sha256(address.encode()).hexdigest()[:16]
        try:
            self._files, self._path = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise InputError(f"{address}: cannot be opened ({error})") from error
        _make_private(self.root)
        self._hashed: set[str] = set()  # shards whose content this process has compared with the manifest
        manifest = self._fetch_small("dataset.json")
        self.digest = hashlib.sha256(manifest).hexdigest()
        self._shards, index_sha256 = _parse_manifest(manifest, address)
        largest, total = (f(size for size, _ in self._shards.values()) for f in (max, sum))
        if largest > max_bytes:
            raise InputError(
                f"{address}: its largest shard has {largest / 1e9:.2f} GB, the cache only {max_bytes / 1e9:.2f} GB; "
                "give a larger cache"
            )
        if total > max_bytes:
            _log.warning(
                "%s has %.1f GB, the cache %.1f GB: clips are drawn from all shards at random, so shards will be "
                "fetched again and again",
                *(address, total / 1e9, max_bytes / 1e9),
            )
        index = self.root / INDEX_NAME
        if not index.exists() or _sha256(index) != index_sha256:
            with self._locked(INDEX_NAME):
                os.close(self._download(INDEX_NAME, None, index_sha256))

    def sizes(self) -> dict[str, int]:
        """Bytes of every shard, by name."""
        return {name: size for name, (size, _) in self._shards.items()}

    def ranges(self) -> RangeCache:
        """The same shards, read by ranges; the bound on bytes is the same."""
        folder = self.root / "ranges"
        return RangeCache(self._files, self.address, self._path, self.sizes(), folder, self.max_bytes)

    def open(self, name: str) -> int:
        """A descriptor of the shard's content, open for reading; the shard is fetched if it is not there.

        What is open stays readable when the file has to make room for others.
        """
        path = self.root / name
        with self._locked(name):
            descriptor = self._open_known(name)
            if descriptor is None:
                # opened before others see it: from then on they may remove it at any moment
                descriptor = self._download(name, *self._shards[name])
                self._make_room(keep=path)
            os.utime(descriptor)  # the time of last use; the modification time of a shard means nothing else
        return descriptor

    def _open_known(self, name: str) -> int | None:
        """A descriptor of a shard that is here already; its content is compared once in a process.

        None where it is not there, or is not what the manifest says: somebody else may have put it there.
        """
        path = self.root / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            path.unlink(missing_ok=True)
            return None
        if name in self._hashed:
            return descriptor
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            with open(descriptor, "rb", closefd=False) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == self._shards[name][1]:
                    self._hashed.add(name)
                    return descriptor
        os.close(descriptor)
        path.unlink()
        _log.warning("%s: not what the manifest of %s says; it is fetched again", path, self.address)
        return None

    def _download(self, name: str, size: int | None, sha256: str) -> int:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        problem: object = None
        for attempt in range(_TRIES):
            digest, got = hashlib.sha256(), 0
            target = AtomicFile(path, durable=False)
            try:
                with self._files.open(f"{self._path}/{name}", "rb") as source:
                    while data := source.read(_CHUNK):
                        got += len(data)
                        if got > (_MAX_INDEX if size is None else size):
                            break
                        digest.update(data)
                        target.write(data)
                if digest.hexdigest() == sha256 and size in (None, got):
                    descriptor = os.open(target.partial, os.O_RDONLY | os.O_CLOEXEC)
                    target.commit()
                    self._hashed.add(name)
                    return descriptor
                problem = f"{got} bytes whose SHA-256 is not that of the manifest"
            except OSError as error:
                problem = error
                time.sleep(2**attempt)  # a busy server, a broken line
            finally:
                target.discard()
        raise InputError(f"{self.address}/{name}: {_TRIES} tries to fetch it failed, the last one with: {problem}")

    def _fetch_small(self, name: str) -> bytes:
        try:
            with self._files.open(f"{self._path}/{name}", "rb") as source:
                data = source.read(_MAX_TEXT + 1)
        except OSError as error:
            raise InputError(
                f"{self.address}/{name}: cannot be read ({error}); expected a dataset made by `unstill convert`"
            ) from error
        if len(data) > _MAX_TEXT:
            raise InputError(f"{self.address}/{name}: more than {_MAX_TEXT} bytes; it is no manifest of a dataset")
        return data

    def _make_room(self, keep: Path) -> None:
        kept = []
        for name in self._shards:
            try:
                found = (self.root / name).stat()
            except FileNotFoundError:
                continue
            kept.append((found.st_mtime_ns, found.st_size, self.root / name))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self.max_bytes:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One process and thread at a time may fetch a file."""
        path = self.root / f".{name.replace('/', '_')}.lock"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def _make_private(folder: Path) -> None:
    """Create a folder that only this user can write to, or check that an existing one is so.

    Raises:
        InputError: it belongs to somebody else: what is there would be read as if it were ours.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise InputError(f"{folder}: the cache belongs to another user, or is a link; give another --loader.cache")
    if found.st_mode & 0o022:
        folder.chmod(0o700)


def _parse_manifest(data: bytes, address: str) -> tuple[dict[str, tuple[int, str]], str]:
    """(size and SHA-256 by name of shard, SHA-256 of the index) of a dataset.json.

    Raises:
        InputError: it is none.
    """
    try:
        manifest = parse_json(data)
        shards = {shard["name"]: (shard["bytes"], shard["sha256"]) for shard in manifest["shards"]}
        index = manifest["index_sha256"]
        if not shards or not all(
            isinstance(name, str) and type(size) is int and 0 <= size < 1 << 50 and isinstance(digest, str)
            for name, (size, digest) in shards.items()
        ):
            raise ValueError("no shards, or shards without name, bytes and sha256")
        if not isinstance(index, str):
            raise ValueError("index_sha256 is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{address}/dataset.json: not a manifest ({type(error).__name__}: {error})") from None
    for name in shards:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name or len(name) > 1024:
            raise InputError(f"{address}: the manifest names a shard outside the dataset ({name!r:.200}); refused")
    return shards, index


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

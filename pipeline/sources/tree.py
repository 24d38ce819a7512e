"""The files of a source, in a local folder or behind an address (s3://, gs://, https://, ...) that fsspec reads.

A remote video is fetched to a temporary file just before it is converted; the sandboxed child that decodes it has no
network and no credentials.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from ..shards.cache import remote_address
from ..shards.quarantine import BadVideo

# Only decides which files are looked at: what a file is, its content says.
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .ts .m2ts .mts .flv .wmv .asf .3gp .3g2 .ogv .ogg .vob .ivf".split()
)
CHUNK = 8 << 20
# what object stores call the identity of a file's content
_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "md5", "crc32c", "checksum", "sha256", "LastModified", "last_modified")


class LocalTree:
    """A folder."""

    def __init__(self, root: Path):
        self.root = root
        self._files: list[str] | None = None
        if not root.is_dir():
            problem = "not a folder" if root.exists() else "no such folder"
            raise InputError(f"{root}: {problem}; expected the folder that holds the videos")

    def folders(self) -> list[str]:
        """Names of the folders (and of links to folders) directly in the root."""
        return sorted(e.name for e in os.scandir(self.root) if e.is_dir() and not e.name.startswith("."))

    def files(self, suffixes: frozenset[str]) -> list[str]:
        """Sorted paths below the root; hidden ones and links to folders are left out, but for links in the root."""
        if self._files is None:
            self._files = sorted(self._walk())
        return [path for path in self._files if has_suffix(path, suffixes)]

    def _walk(self) -> Iterator[str]:
        pending = [""]
        while pending:
            below = pending.pop()
            for entry in os.scandir(os.path.join(self.root, below)):
                if entry.name.startswith("."):
                    continue
                path = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=not below):
                    pending.append(path)
                elif not entry.is_dir():
                    yield path


class RemoteTree:
    """A folder behind an address; listed once."""

    def __init__(self, root: str):
        self.root = root
        files, path = _file_system(root)
        try:
            found = files.find(path)
        except OSError as error:
            raise InputError(f"{root}: cannot be listed ({_reason(error)})") from error
        if not found:
            raise InputError(f"{root}: no files there; expected the folder that holds the videos")
        prefix = path.rstrip("/") + "/"
        below = (name.removeprefix(prefix) for name in found)
        self._files = sorted(name for name in below if not any(part.startswith(".") for part in name.split("/")))

    def folders(self) -> list[str]:
        """Names of the folders directly in the root that hold a file."""
        return sorted({name.split("/")[0] for name in self._files if "/" in name})

    def files(self, suffixes: frozenset[str]) -> list[str]:
        """Sorted paths below the root; hidden ones are left out."""
        return [name for name in self._files if has_suffix(name, suffixes)]


def open_tree(source: str | Path) -> LocalTree | RemoteTree:
    """The files of ``source``.

    Raises:
        InputError: no such folder, or an address that cannot be listed.
    """
    address = remote_address(source)
    return LocalTree(Path(source)) if address is None else RemoteTree(address)


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    """Whether the file's suffix is one of ``suffixes``, in any case."""
    return "." + name.rpartition(".")[2].lower() in suffixes


def is_video(name: str) -> bool:
    """Whether the file's suffix is one of a video."""
    return has_suffix(name, VIDEO_SUFFIXES)


def place_of(root: str | Path, path: str) -> dict:
    """Where a worker finds the file: ``path`` of a local one, or ``fetch``, the address to fetch it from first."""
    return {"path": os.path.join(root, path)} if isinstance(root, Path) else {"fetch": f"{root.rstrip('/')}/{path}"}


def remote_facts(root: str, path: str) -> tuple[int, str] | None:
    """(bytes, version) of a remote file without reading it; None when it is not there."""
    files, full = _file_system(f"{root.rstrip('/')}/{path}")
    try:
        return _facts(files.info(full))
    except OSError:
        return None


@contextmanager
def fetched(address: str, expect: tuple[int, str] | None) -> Iterator[str]:
    """A temporary local copy of a remote file.

    Args:
        expect: (bytes, version) of the plan, or None to take what is there.

    Raises:
        BadVideo: it is gone, has changed since the plan was made, or cannot be read.
    """
    files, path = _file_system(address)
    with tempfile.NamedTemporaryFile(prefix="unstill_") as copy:
        try:
            found = _facts(files.info(path))
            if expect is not None and found != expect:
                raise BadVideo("changed", f"another version than when the plan was made ({found[0]} bytes)")
            with files.open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    copy.write(chunk)
            copy.flush()
        except FileNotFoundError as error:
            raise BadVideo("missing", "the file has gone since the plan was made") from error
        except OSError as error:
            raise BadVideo("unreadable", f"fetching it failed: {_reason(error)}") from error
        yield copy.name


def _file_system(address: str):
    import fsspec  # comes with torch; imported here because only remote sources need it

    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(f"{address}: cannot be opened ({_reason(error)})") from error


def _facts(info: dict) -> tuple[int, str]:
    version = next((str(info[name]) for name in _VERSION_FIELDS if info.get(name)), "")
    return int(info.get("size") or 0), f"remote:{version}"


def _reason(error: BaseException) -> str:
    text = str(error).splitlines()
    return text[0][:200] if text else type(error).__name__

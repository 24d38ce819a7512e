"""The files of a source, in a local folder or behind an address (s3://, gs://, https://, ...) that fsspec reads.

A remote video is fetched to a temporary file just before it is converted; the sandboxed child that decodes it has no
network and no credentials.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from ..shards.cache import remote_address
from ..shards.quarantine import BadVideo

# Only decides which files are looked at: what a file is, its content says.
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .qt .avi .divx .xvid .mkv .webm .mpg .mpeg .mpe .m2p .ts .m2t .m2ts .mts .flv .f4v .wmv .asf .3gp "
    ".3g2 .ogv .ogg .vob .mod .ivf".split()
)
# Videos all the same, that no decoder here reads: they are counted and named.
_OTHER_VIDEOS = frozenset(
    ".gif .webp .apng .y4m .yuv .mxf .gxf .rm .rmvb .dv .h264 .264 .avc .h265 .265 .hevc .m1v .m2v .mjpeg .mjpg .obu "
    ".wtv .dvr-ms .nut .bik .amv .mjp2 .mj2 .swf .roq .tod".split()
)
CHUNK = 8 << 20
# what object stores call the identity of a file's content
_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "md5", "crc32c", "checksum", "sha256", "LastModified", "last_modified")


class _Tree(ABC):
    """The files of a source; paths with "/", sorted.

    Attributes:
        root: the folder or address.
    """

    root: Path | str

    def outside(self) -> frozenset[str]:
        """The files that are reached through a link that leaves the root."""
        return frozenset()

    def files(self, suffixes: frozenset[str]) -> list[str]:
        """Sorted paths below the root; hidden ones are left out."""
        return [path for path in self._found() if has_suffix(path, suffixes)]

    def overlooked(self, used: frozenset[str] = VIDEO_SUFFIXES) -> tuple[tuple[str, int, str], ...]:
        """(why, how many, the first one) of the files whose suffix is not among ``used``."""
        groups: dict[str, list[str]] = {}
        for path in self._found():
            if not has_suffix(path, used):
                suffix = "." + path.rpartition(".")[2].lower() if "." in path.rpartition("/")[2] else ""
                kind = "of a video format that is not read" if suffix in _OTHER_VIDEOS else "not a video by its name"
                kind = "a video next to the tar files" if suffix in VIDEO_SUFFIXES else kind
                groups.setdefault(f"{kind} ({suffix or 'no suffix'})", []).append(path)
        for why, paths in self._left_out().items():
            groups.setdefault(why, []).extend(paths)
        return tuple((why, len(paths), min(paths)) for why, paths in sorted(groups.items()))

    @abstractmethod
    def _found(self) -> list[str]: ...

    @abstractmethod
    def _left_out(self) -> dict[str, list[str]]: ...


class LocalTree(_Tree):
    """A folder. Links to folders are followed, but not into a folder that they lie in.

    Args:
        root: the folder.
        follow_links: take what lies behind links that leave it as its own.
    """

    def __init__(self, root: Path, follow_links: bool = False):
        self.root, self._follow_links = root, follow_links
        self._outside: set[str] = set()
        self._files: list[str] | None = None
        self._not_found: dict[str, list[str]] = {}
        if not root.is_dir():
            problem = "not a folder" if root.exists() else "no such folder"
            raise InputError(f"{root}: {problem}; expected the folder that holds the videos")

    def folders(self) -> list[str]:
        """Names of the folders (and of links to folders) directly in the root."""
        return sorted(e.name for e in os.scandir(self.root) if e.is_dir() and not e.name.startswith("."))

    def outside(self) -> frozenset[str]:
        """See above; a root that is a link itself is the folder that it leads to."""
        self._found()
        return frozenset(self._outside)

    def _found(self) -> list[str]:
        if self._files is None:
            self._files = sorted(self._walk())
        return self._files

    def _left_out(self) -> dict[str, list[str]]:
        return self._not_found

    def _walk(self) -> Iterator[str]:
        pending = [("", frozenset([_identity(self.root)]), False)]
        inside = os.path.join(os.path.realpath(self.root), "")
        while pending:
            below, above, beyond = pending.pop()
            try:
                entries = list(os.scandir(os.path.join(self.root, below)))
            except OSError as error:
                self._not_found.setdefault(f"in a folder that cannot be read ({error.strerror})", []).append(below)
                continue
            for entry in entries:
                path = f"{below}/{entry.name}" if below else entry.name
                leaves = beyond or (
                    entry.is_symlink()
                    and not self._follow_links
                    and os.path.exists(entry.path)
                    and not os.path.join(os.path.realpath(entry.path), "").startswith(inside)
                )
                if entry.name.startswith("."):
                    self._not_found.setdefault("hidden (its name starts with a dot)", []).append(path)
                elif not entry.is_dir():
                    if leaves:
                        self._outside.add(path)
                    yield path
                elif (identity := _identity(entry.path)) in above:
                    self._not_found.setdefault("a link to a folder that it lies in", []).append(path)
                else:
                    pending.append((path, above | {identity}, leaves))


def _identity(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


class RemoteTree(_Tree):
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
        below = sorted(name.removeprefix(prefix) for name in found)
        hidden = {name for name in below if any(part.startswith(".") for part in name.split("/"))}
        self._files = [name for name in below if name not in hidden]
        self._hidden = {"hidden (its name starts with a dot)": sorted(hidden)} if hidden else {}

    def folders(self) -> list[str]:
        """Names of the folders directly in the root that hold a file."""
        return sorted({name.split("/")[0] for name in self._files if "/" in name})

    def _found(self) -> list[str]:
        return self._files

    def _left_out(self) -> dict[str, list[str]]:
        return self._hidden


def open_tree(source: str | Path, follow_links: bool = False) -> LocalTree | RemoteTree:
    """The files of ``source``; ``follow_links``: those behind links that leave it are its own.

    Raises:
        InputError: no such folder, or an address that cannot be listed.
    """
    address = remote_address(source)
    return LocalTree(Path(source), follow_links) if address is None else RemoteTree(address)


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
            raise BadVideo("missing", "the file has disappeared since the plan was made") from error
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

"""The plan of a conversion: every input with what identifies its content, its key, and its place in the shards.

Made once and kept as ``OUT/plan.jsonl``; all work follows it, so that any number of processes, machines and restarts
produce the same bytes. First line: the header; then one line a video, in shard order.
"""

import functools
import hashlib
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import av

from ..atomic_files import AtomicFile
from ..bounded_files import open_plain, parse_json
from ..errors import InputError
from ..progress import Progress
from ..safe_text import printable
from ..shards.video_format import VideoFormat
from ..shards.writer import MAX_KEY, canonical_json
from ..sources.listing import Listing, SourceVideo
from ..sources.tree import remote_facts
from .content_hash import block_digest

PLAN_NAME = "plan.jsonl"
PLAN_VERSION = 2
_MAPS = "/proc/self/maps"


@dataclass(frozen=True)
class PlannedVideo:
    """One video of the plan.

    Attributes:
        path, label, start, end, offset: see ``SourceVideo``.
        key: its name in the shard, unique in the plan.
        bytes: size when the plan was made.
        content: hash of its length and some of its blocks; of a remote file, the version that its store names, after
            "remote:". The SHA-256 of all bytes is taken when it is converted: a source is read once.
        modified: when it was last modified, seconds since 1970; not part of the plan's id, for a copy has another time.
        fault: reason and detail when it goes to the quarantine list without being tried (missing, duplicate).
    """

    path: str
    label: int
    start: float | None
    end: float | None
    offset: int
    key: str
    bytes: int
    content: str
    modified: int | None
    fault: tuple[str, str] | None


@dataclass(frozen=True)
class PlanHeader:
    """What identifies a plan.

    Attributes:
        id: sha256 over everything below and all videos.
        settings: recipe, seed and samples per shard: what the user chose.
        listing: digest of the source's paths, labels and parts.
        tools: versions of the libraries that decide the bytes.
        classes: class names in label order.
        videos: number of planned videos.
        shards: number of shards.
    """

    id: str
    version: int
    settings: dict
    listing: str
    tools: dict
    classes: tuple[str, ...]
    videos: int
    shards: int

    @property
    def samples_per_shard(self) -> int:
        """Videos planned for each shard but the last."""
        return self.settings["samples_per_shard"]


class Plan:
    """A plan with its videos."""

    def __init__(self, header: PlanHeader, videos: list[PlannedVideo]):
        self.header, self.videos = header, videos

    def shard(self, number: int) -> list[PlannedVideo]:
        """The videos of one shard, in order."""
        size = self.header.samples_per_shard
        return self.videos[number * size : (number + 1) * size]

    def save(self, path: Path) -> None:
        """Write the plan atomically."""
        file = AtomicFile(path)
        try:
            file.write(canonical_json(asdict(self.header)) + b"\n")
            for video in self.videos:
                file.write(canonical_json(vars(video)) + b"\n")
            file.commit()
        finally:
            file.discard()


def plan_settings(recipe: VideoFormat, seed: int, samples_per_shard: int, follow_links: bool = False) -> dict:
    """The user's choices that decide the bytes of the dataset, as plain JSON values."""
    links = {"follow_links": True} if follow_links else {}  # off has no entry: plans from before it stay valid
    return {"recipe": asdict(recipe), "seed": seed, "samples_per_shard": samples_per_shard, **links}


def tool_versions() -> dict:
    """Versions of the libraries that decide the bytes; of those that tell no version, the hash of the loaded file."""
    libraries = {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
    return {"av": av.__version__, "ffmpeg": getattr(av, "ffmpeg_version_info", ""), **libraries, **_loaded_codecs()}


@functools.cache
def _loaded_codecs() -> dict[str, str]:
    """The first 12 digits of the SHA-256 of each codec library that libavcodec brings into a process.

    Seen in a new process, as those that transcode are: this one may hold others' copies (decord has its own libvpx).
    """
    if not os.path.exists(_MAPS):  # not Linux
        return {}
    program = f"import av; print(open({_MAPS!r}).read())"
    maps = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {}
    for path in sorted({line.split(maxsplit=5)[5].strip() for line in maps.splitlines() if "/lib" in line}):
        name = re.match(r"lib(x264|x265|vpx|dav1d)\b", os.path.basename(path))
        if name:
            with open(path, "rb", opener=open_plain) as file:
                found[name[1]] = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return found


def make_plan(listing: Listing, settings: dict) -> Plan:
    """Look at every source file and fix keys, order and shards.

    The order is a global shuffle by sha256(seed, key): the same on every machine, for every version of every library.
    """
    videos = [*listing.videos, *listing.missing, *listing.outside]
    beyond = {video.path for video in listing.outside}
    keys = [*assign_keys(videos), *(_duplicate_key(number) for number in range(len(listing.duplicates)))]
    facts = _identify_files(listing.root, sorted({(v.path, v.offset, v.length) for v in listing.videos}, key=str))
    planned = []
    for position, (video, key) in enumerate(zip([*videos, *listing.duplicates], keys, strict=True)):
        size, content, modified, fault = 0, "", None, None
        if position >= len(videos):
            fault = ("duplicate", f"listed again, as class {listing.classes[video.label]!r}")
        elif video.path in beyond:
            fault = ("outside", "behind a link that leaves the source; --follow-links takes it")
        elif video.candidates:
            fault = ("ambiguous", f"may be {' or '.join(video.candidates[:8])}; write the whole path in the list")
        elif fact := facts.get((video.path, video.offset, video.length)):
            size, content, modified = fact
        else:
            fault = ("missing", "not there, or not readable, when the plan was made")
        part = (video.start, video.end, video.offset)
        planned.append(PlannedVideo(video.path, video.label, *part, key, size, content, modified, fault))
    planned.sort(key=lambda v: hashlib.sha256(f"{settings['seed']}\0{v.key}".encode()).digest())
    per_shard = settings["samples_per_shard"]
    fields = {
        "version": PLAN_VERSION,
        "settings": settings,
        "listing": listing_digest(listing),
        "tools": tool_versions(),
        "classes": listing.classes,
        "videos": len(planned),
        "shards": -(-len(planned) // per_shard),
    }
    return Plan(PlanHeader(id=_plan_id(fields, planned), **fields), planned)


def _plan_id(fields: dict, planned: list[PlannedVideo]) -> str:
    """SHA-256 of all that a plan says, except the times at which files were modified."""
    digest = hashlib.sha256(canonical_json(fields))
    for video in planned:
        digest.update(canonical_json({**vars(video), "modified": None}))
    return digest.hexdigest()


def _check_plan(header: PlanHeader, videos: list[PlannedVideo], path: Path) -> None:
    """A plan may lie where others can write: it must be the one that was made, and name nothing outside the source.

    Raises:
        InputError: it is another one.
    """
    fields = {name: value for name, value in vars(header).items() if name != "id"}
    try:
        same = _plan_id(fields, videos) == header.id
    except (ValueError, TypeError):  # NaN, or what is no JSON
        same = False
    if not same:
        raise InputError(f"{path}: was changed since it was made; remove the output folder and convert again")
    for video in videos:
        if PurePosixPath(video.path).is_absolute() or ".." in PurePosixPath(video.path).parts:
            raise InputError(f"{path}: names {printable(video.path)!r}, which is not in the source; refused")


def read_header(path: Path) -> PlanHeader | None:
    """The header of a saved plan, or None when there is no plan.

    Raises:
        InputError: there is a file, but not a plan of this version.
    """
    try:
        with open(path, "rb", opener=open_plain) as file:
            return _header(file.readline(), path)
    except FileNotFoundError:
        return None


def read_plan(path: Path) -> Plan:
    """A saved plan.

    Raises:
        InputError: no such file, or not a plan of this version.
    """
    try:
        with open(path, "rb", opener=open_plain) as file:
            header = _header(file.readline(), path)
            videos = [_planned(parse_json(line)) for line in file]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no plan found; run `unstill convert SOURCE OUT` without --shards first") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a plan ({error}); remove the output folder and convert again") from error
    _check_plan(header, videos, path)
    if len(videos) != header.videos:
        raise InputError(f"{path}: {len(videos)} videos, its header says {header.videos}; remove the output folder")
    return Plan(header, videos)


def _header(line: bytes, path: Path) -> PlanHeader:
    try:
        header = PlanHeader(**parse_json(line))
        if header.version != PLAN_VERSION:
            raise ValueError(f"version {header.version}, this program writes {PLAN_VERSION}")
        kinds = {"settings": dict, "tools": dict, "classes": list, "videos": int, "shards": int, "id": str}
        for name, kind in kinds.items():
            if not isinstance(getattr(header, name), kind):
                raise ValueError(f"{name} is no {kind.__name__}")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a plan of this version ({error}); choose a new output folder") from error
    return PlanHeader(**{**vars(header), "classes": tuple(header.classes)})


def _planned(fields: dict) -> PlannedVideo:
    fault = fields.pop("fault")
    return PlannedVideo(**fields, fault=tuple(fault) if fault else None)


def listing_digest(listing: Listing) -> str:
    """Digest of what is to be converted, without looking into any file."""
    digest = hashlib.sha256(canonical_json(listing.classes))
    groups = (listing.videos, listing.missing, listing.duplicates)
    for group in (*groups, listing.outside) if listing.outside else groups:
        # one join and one hash: 0.3 s for the 240,000 videos of Kinetics-400, against 2 s through JSON
        lines = (f"{v.path}\0{v.label} {v.start} {v.end} {v.offset} {v.length}" for v in group)
        digest.update("\0\0".join([f"{len(group)}", *lines]).encode(errors="surrogateescape"))
    return digest.hexdigest()


def assign_keys(videos: list[SourceVideo]) -> list[str]:
    """A key for each video, ``[A-Za-z0-9_-]{1,90}``: its path without the suffix, "/" -> "_", the rest sanitised.

    Parts of a video get their seconds appended. Keys that would collide, or were cut, end in 8 digits of a hash of path
    and part, so that a key never depends on which other videos there are once it has its hash. The ``__k`` of a
    composite stays behind the hash, which leaves it out.
    """
    plain = [_plain_key(video) for video in videos]
    count: dict[str, int] = {}
    for key in plain:
        count[key] = count.get(key, 0) + 1
    keys = [
        _hashed(key, video) if count[key] > 1 or len(key) > MAX_KEY else key
        for key, video in zip(plain, videos, strict=True)
    ]
    if len(set(keys)) != len(keys):  # a plain key that looks like another's hashed one
        keys = [_hashed(key, video) for key, video in zip(plain, videos, strict=True)]
    if len(set(keys)) != len(keys):
        seen: set[str] = set()
        twice = next(video for key, video in zip(keys, videos, strict=True) if key in seen or seen.add(key))
        raise InputError(f"{twice.path!r}: listed twice with the same part; remove one of the two lines")
    return keys


def _plain_key(video: SourceVideo) -> str:
    stem = os.path.splitext(video.name or video.path)[0]
    if video.start is not None or video.end is not None:
        stem += f"_{video.start or 0:g}_{'end' if video.end is None else format(video.end, 'g')}"
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem.replace("/", "_"))


def _hashed(key: str, video: SourceVideo) -> str:
    identity, ending = video.identity(), ""
    composite = re.fullmatch(r"(.+)(__[0-9]{1,9})(\.[^./]*)", video.path)
    if composite and identity[1:] == (0, None, None):  # <video>__<k>: all k of a video must show that they are its
        identity, ending = (composite[1] + composite[3], *identity[1:]), composite[2]
        key = key.removesuffix(ending)[: MAX_KEY - 9 - len("__123456789")]  # the same for all k
    return f"{key[: MAX_KEY - 9]}_{hashlib.sha256(canonical_json(identity)).hexdigest()[:8]}{ending}"


def _duplicate_key(number: int) -> str:
    return f"duplicate_{number}"  # never in a shard; a dot-free name that only has to be unique in the plan


_Place = tuple[str, int, int | None]  # path, offset, length


def _identify_files(root: str | Path, places: list[_Place]) -> dict[_Place, tuple[int, str, int | None]]:
    """(bytes, content, modified) of each piece of a file, see ``PlannedVideo``; what cannot be read is left out."""

    def one(place: _Place) -> tuple[int, str, int | None] | None:
        path, offset, length = place
        if not isinstance(root, Path):
            found = remote_facts(root, path)
            return None if found is None else (*found, None)
        try:
            status = os.stat(f"{root}/{path}")
            if not stat.S_ISREG(status.st_mode):
                return None  # opening a pipe would wait for ever
            size = status.st_size if length is None else length
            with open(f"{root}/{path}", "rb", buffering=0) as file:
                return size, block_digest(file, offset, size), int(status.st_mtime)
        except OSError:
            return None

    found = {}
    with (
        ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as threads,
        Progress("planning", len(places), "videos") as progress,
    ):
        for place, fact in zip(places, threads.map(one, places), strict=True):
            progress.advance()
            if fact is not None:
                found[place] = fact
    return found

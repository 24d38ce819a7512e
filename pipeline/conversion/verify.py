"""`unstill verify`: re-checks a dataset, or a single shard, and names every fault with its place.

Nothing in a shard is trusted: names are never used as paths, nothing is unpickled or executed, all sizes are bounded,
and videos are decoded in the sandbox only.
"""

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..bounded_files import parse_json
from ..errors import InputError
from ..progress import Progress
from ..safe_text import printable
from ..sandbox.process import Limits, Sandbox
from ..shards.fragments import fragment_table
from ..shards.index import CODECS, INDEX_NAME, SampleIndex
from ..shards.reader import EXTENSIONS, KEY, Malformed, Member, members, read_member
from ..shards.verified import mark_verified
from ..shards.writer import dali_index, dali_index_line, describe_sample, read_manifest
from .merge import build_index, read_dataset
from .output import DATASET_NAME, SHARD_FOLDER
from .sandbox.pool import Pool

MAX_JSON = 1 << 20
MAX_TABLE = 1 << 20
MAX_INDEX = 1 << 28
LIMITS = Limits(seconds=120.0, memory_bytes=512 << 20)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        shard: the file, relative to the dataset's folder.
        offset: byte offset in the shard; 0 when the whole file is meant.
        key: the sample, escaped for printing; "" when none is concerned.
        problem: what is wrong, one line.
    """

    shard: str
    offset: int
    key: str
    problem: str

    def __str__(self) -> str:
        key = f" {self.key}" if self.key else ""
        return f"{self.shard}:{self.offset}{key}: {self.problem}"


@dataclass
class _ShardScan:
    """What was found in one shard: sample descriptions as in a manifest, and faults."""

    name: str
    size: int = 0
    sha256: str = ""
    samples: list[dict] = field(default_factory=list)
    dali_index: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, offset: int, key: str, problem: str) -> None:
        self.faults.append(Fault(self.name, offset, printable(key)[:120], printable(problem)))


def verify(path: str | os.PathLike, *, decode: bool = True, workers: int = 0, sandbox: Sandbox = "auto") -> list[Fault]:
    """Check a dataset folder or one shard.

    Args:
        path: the folder that holds ``dataset.json``, or a ``.tar``.
        decode: also decode every frame of every video (in sandboxed processes).
        workers: processes and threads; 0 is one for every core.
        sandbox: see ``Limits``.

    Returns:
        All faults, ordered by shard and offset; empty when all is well.

    Raises:
        InputError: there is no dataset and no shard at ``path``.
    """
    path = Path(path)
    workers = workers or len(os.sched_getaffinity(0))
    if path.is_dir():
        dataset = read_dataset(path)
        if dataset is None:
            raise InputError(f"{path}: no {DATASET_NAME}; expected a finished dataset of `unstill convert`, or a shard")
        root, names = path, _shard_names(dataset, path)
    elif path.is_file():
        dataset, root, names = None, path.parent, [path.name]
    else:
        raise InputError(f"{path}: no such file or folder; expected a dataset of `unstill convert`, or a shard")
    scans = _scan_all(root, names, workers)
    faults = [fault for scan in scans for fault in scan.faults]
    if dataset is not None:
        faults += _check_dataset(root, dataset, scans)
    if decode:
        faults += _decode_all(root, scans, workers, sandbox)
    faults += _duplicates(scans)
    if decode and not faults and dataset is not None:
        mark_verified(path)
    return sorted(faults, key=lambda fault: (fault.shard, fault.offset, fault.key, fault.problem))


def _shard_names(dataset: dict, path: Path) -> list[str]:
    """Shard names from ``dataset.json``, which is not trusted either: each must be a plain name in the shard folder."""
    try:
        names = [shard["name"] for shard in dataset["shards"]]
        good = all(KEY.fullmatch(name.removeprefix(f"{SHARD_FOLDER}/").removesuffix(".tar")) for name in names)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path / DATASET_NAME}: its list of shards cannot be read ({error!r})") from error
    if not good or not all(name.startswith(f"{SHARD_FOLDER}/") and name.endswith(".tar") for name in names):
        raise InputError(f"{path / DATASET_NAME}: names a shard outside {SHARD_FOLDER}/; this is no dataset of ours")
    return names


def _scan_all(root: Path, names: list[str], workers: int) -> list[_ShardScan]:
    with ThreadPoolExecutor(workers) as threads, Progress("checking", len(names), "shards") as progress:
        scans = []
        for scan in threads.map(lambda name: _scan(root, name), names):
            scans.append(scan)
            progress.advance()
    return scans


def _scan(root: Path, name: str) -> _ShardScan:
    scan = _ShardScan(name)
    try:
        if not stat.S_ISREG(os.stat(root / name).st_mode):
            scan.fault(0, "", "is not a plain file")  # reading a pipe or a device would never end
            return scan
        with open(root / name, "rb") as file:
            scan.size = os.fstat(file.fileno()).st_size
            scan.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            for group in _groups(members(file), scan):
                _check_sample(file, group, scan)
    except Malformed as malformed:
        scan.fault(malformed.offset, "", malformed.problem)
    except OSError as error:
        scan.fault(0, "", f"cannot be read ({os.strerror(error.errno or 0)})")
    return scan


def _groups(found: Iterator[Member], scan: _ShardScan) -> Iterator[list[Member]]:
    """Complete samples: four plain members of one key in their order; everything else is a fault."""
    group: list[Member] = []
    for member in found:
        if problem := _member_problem(member):
            scan.fault(member.header, member.key, problem)
            continue
        if group and member.key != group[0].key:
            _report_incomplete(group, scan)
            group = []
        if member.extension != EXTENSIONS[len(group)]:
            expected = EXTENSIONS[len(group)]
            scan.fault(member.header, member.key, f"component {member.extension!r} where {expected!r} was expected")
            group = []
            continue
        group.append(member)
        if len(group) == len(EXTENSIONS):
            yield group
            group = []
    if group:
        _report_incomplete(group, scan)


def _member_problem(member: Member) -> str:
    if member.kind:
        return f"{member.name!r} is a {member.kind}, expected a plain file"
    if not KEY.fullmatch(member.key):
        return f"{member.name!r} is not a sample's name"
    if member.extension not in EXTENSIONS:
        return f"{member.name!r} is no component of a sample; expected {', '.join(EXTENSIONS)}"
    if member.extension != "mp4" and member.size > MAX_JSON:
        return f"{member.name!r} has {member.size} bytes, at most {MAX_JSON} are allowed"
    return ""


def _report_incomplete(group: list[Member], scan: _ShardScan) -> None:
    missing = ", ".join(EXTENSIONS[len(group) :])
    scan.fault(group[0].header, group[0].key, f"the sample lacks {missing}")


def _check_sample(file, group: list[Member], scan: _ShardScan) -> None:
    """Check one sample's members against each other and add its description to ``scan``."""
    mp4_member, gops_member, cls_member, json_member = group
    key = mp4_member.key
    mp4 = read_member(file, mp4_member)
    try:
        table = _read_table(read_member(file, gops_member))
        about = _read_about(read_member(file, json_member))
    except ValueError as error:
        return scan.fault(gops_member.header, key, str(error))
    try:
        init_bytes, offsets = fragment_table(mp4)
    except ValueError as error:
        return scan.fault(mp4_member.header, key, str(error))
    frames, _, label, gop = table[:4]
    if table[4:] != [init_bytes, *offsets.tolist()]:
        return scan.fault(gops_member.header, key, "the fragment table is not that of the MP4")
    if frames < 1 or gop < 1 or label < 0 or len(offsets) - 1 != -(-frames // gop):
        return scan.fault(gops_member.header, key, f"{len(offsets) - 1} fragments for {frames} frames in GOPs of {gop}")
    if read_member(file, cls_member) != b"%d" % label:
        return scan.fault(cls_member.header, key, f"its class is not the label {label} of the fragment table")
    sample = describe_sample(key, about["source"], mp4_member.offset, mp4, table, about)
    if about["crc32"] != zlib.crc32(mp4):
        scan.fault(mp4_member.header, key, "the MP4 is damaged (its CRC-32 does not fit)")
    for name, value in (("key", key), ("label", label), ("frames", frames)):
        if about[name] != value:
            scan.fault(json_member.header, key, f"{name} is {about[name]!r} in the JSON, {value!r} elsewhere")
    scan.samples.append(sample)
    scan.dali_index.append(dali_index_line(key, [m.offset for m in group], [m.size for m in group]))


def _read_table(data: bytes) -> list[int]:
    if len(data) % 4 or len(data) < 28 or len(data) > MAX_TABLE:
        raise ValueError(f"the fragment table has {len(data)} bytes, expected at least 7 int32")
    return np.frombuffer(data, "<i4").tolist()


_ABOUT = {
    "key": str,
    "label": int,
    "source": str,
    "frames": int,
    "width": int,
    "height": int,
    "codec": str,
    "crc32": int,
}


def _read_about(data: bytes) -> dict:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    try:
        about = parse_json(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its JSON cannot be read ({type(error).__name__})") from error
    if not isinstance(about, dict):
        raise ValueError("its JSON is not an object")
    for name, kind in _ABOUT.items():
        if type(about.get(name)) is not kind:
            raise ValueError(f"its JSON has no {name} of type {kind.__name__}")
    if about["codec"] not in CODECS or not (0 < about["width"] < 65536 and 0 < about["height"] < 65536):
        raise ValueError(f"its JSON names codec {about['codec']!r}, {about['width']}x{about['height']}")
    if about.get("layers", 1) not in (1, 2):
        raise ValueError(f"its JSON names {about['layers']!r} layers, expected 1 or 2")
    if not isinstance(notes := about.get("notes", []), list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("its JSON's notes are no list of texts")
    return about


def _duplicates(scans: list[_ShardScan]) -> list[Fault]:
    seen: dict[str, str] = {}
    faults = []
    for scan in scans:
        for sample in scan.samples:
            place = f"{scan.name}:{sample['offset'] - 512}"
            first = seen.setdefault(sample["key"], place)
            if first != place:
                faults.append(Fault(scan.name, sample["offset"] - 512, sample["key"], f"the key is also in {first}"))
    return faults


def _decode_all(root: Path, scans: list[_ShardScan], workers: int, sandbox: Sandbox) -> list[Fault]:
    names = ("frames", "fps_milli", "gop", "width", "height", "codec", "layers")
    total = sum(len(scan.samples) for scan in scans)

    def tasks() -> Iterator[tuple[tuple[str, dict], dict]]:
        for scan in scans:
            for sample in scan.samples:
                expect = {name: sample.get(name, 1) for name in names}
                place = {"offset": sample["offset"], "bytes": sample["bytes"]}
                yield (scan.name, sample), {"path": os.path.join(root, scan.name), **place, "expect": expect}

    faults = []
    with Pool(workers, replace(LIMITS, sandbox=sandbox)) as pool, Progress("decoding", total, "videos") as progress:
        for (name, sample), answer, _ in pool.map(tasks()):
            if "bad" in answer:
                detail = answer["detail"] if answer["bad"] == "output" else f"{answer['bad']}: {answer['detail']}"
                faults.append(Fault(name, sample["offset"] - 512, sample["key"], printable(detail)))
            progress.advance()
    return faults


def _check_dataset(root: Path, dataset: dict, scans: list[_ShardScan]) -> list[Fault]:
    """Check ``dataset.json``, the per-shard manifests and the index against what the shards hold."""
    faults = []
    for entry, scan in zip(dataset["shards"], scans, strict=True):
        if not scan.sha256:
            continue  # cannot be read: already a fault
        if entry.get("bytes") != scan.size:
            faults.append(Fault(scan.name, 0, "", f"has {scan.size} bytes, {entry.get('bytes')} when it was made"))
        elif entry.get("sha256") != scan.sha256:
            faults.append(Fault(scan.name, 0, "", "is not the file that was made (its SHA-256 differs)"))
        if entry.get("samples") != len(scan.samples):
            faults.append(
                Fault(scan.name, 0, "", f"{len(scan.samples)} good samples, {entry.get('samples')} were made")
            )
    present = {f"{SHARD_FOLDER}/{e.name}" for e in os.scandir(root / SHARD_FOLDER) if e.name.endswith(".tar")}
    for name in sorted(present - {scan.name for scan in scans}):
        faults.append(Fault(name, 0, "", f"is not listed in {DATASET_NAME}"))
    converted = sum(len(scan.samples) for scan in scans)
    if dataset.get("planned") != dataset.get("converted", 0) + dataset.get("quarantined", 0):
        faults.append(Fault(DATASET_NAME, 0, "", "planned videos are not converted + quarantined"))
    if dataset.get("converted") != converted:
        faults.append(
            Fault(DATASET_NAME, 0, "", f"says {dataset.get('converted')} videos, the shards hold {converted}")
        )
    return faults + _check_manifests(root, scans) + _check_index(root, dataset, scans)


def _check_manifests(root: Path, scans: list[_ShardScan]) -> list[Fault]:
    faults = []
    for scan in scans:
        number = Path(scan.name).stem
        manifest = read_manifest(root / SHARD_FOLDER, int(number)) if number.isdigit() else None
        if manifest is None:
            faults.append(Fault(scan.name, 0, "", "has no manifest next to it"))
        elif manifest.get("samples") != scan.samples and not scan.faults:
            faults.append(Fault(scan.name, 0, "", "its samples are not those of the manifest next to it"))
        if not scan.faults and _content(root / scan.name.replace(".tar", ".idx")) != dali_index(scan.dali_index):
            faults.append(Fault(scan.name, 0, "", "its index for DALI is missing or not that of the shard"))
    return faults


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if stat.S_ISREG(path.stat().st_mode) and path.stat().st_size < MAX_INDEX else None
    except OSError:
        return None


def _check_index(root: Path, dataset: dict, scans: list[_ShardScan]) -> list[Fault]:
    """The index must be exactly the one that the shards' contents give."""
    try:
        index = SampleIndex.load(root / INDEX_NAME)
    except InputError as error:
        return [Fault(INDEX_NAME, 0, "", str(error))]
    if any(scan.faults for scan in scans):
        return []  # it would differ for a reason that is already named
    manifests = [{"shard": Path(scan.name).name, "samples": scan.samples} for scan in scans]
    classes = dataset.get("classes", ())
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        return [Fault(DATASET_NAME, 0, "", "its classes are not a list of names")]
    expected = build_index(manifests, tuple(classes))
    for name, column in vars(expected).items():
        value = getattr(index, name)
        same = np.array_equal(column, value) if isinstance(column, np.ndarray) else column == value
        if not same:
            return [Fault(INDEX_NAME, 0, "", f"its column {name} is not that of the shards; merge again with convert")]
    return []

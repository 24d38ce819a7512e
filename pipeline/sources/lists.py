"""Layouts in which a list says what class each video is: Kinetics, UCF101, HMDB51, Diving48, and plain CSV.

Each reader turns its files into rows; ``list_from_rows`` finds the videos below the root, wherever they lie.
"""

import csv
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .listing import Listing, SourceVideo, class_key, class_numbers
from .tree import VIDEO_SUFFIXES, LocalTree, RemoteTree

YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")


@dataclass(frozen=True)
class Row:
    """One line of a list.

    Attributes:
        names: file names or paths to look for, the best first, with or without suffix.
        label: class name, or a number.
        start, end, maybe_cut: see ``SourceVideo``.
    """

    names: tuple[str, ...]
    label: str
    start: float | None = None
    end: float | None = None
    maybe_cut: bool = False


@dataclass(frozen=True)
class VideoList:
    """What a list says: its rows, and its class names in label order if it fixes them."""

    rows: list[Row]
    classes: tuple[str, ...] | None = None


def list_with_labels(
    tree: LocalTree | RemoteTree,
    labels: Path,
    layout: str = "auto",
    split: str | None = None,
    classes: tuple[str, ...] | None = None,
) -> Listing:
    """List the videos that ``labels`` names, found anywhere in ``tree``.

    Args:
        tree: the source's files.
        labels: the list: a file, or for HMDB51 the folder of ``*_test_splitN.txt``.
        layout: ``auto`` or a key of ``READERS``.
        split: only this part of the list (Kinetics: ``train``; HMDB51: ``train1``).
        classes: fixes the label set and its order.

    Raises:
        InputError: the list cannot be read, names no video, or names a class that ``classes`` lacks.
    """
    if not labels.exists():
        raise InputError(f"{labels}: no such file; expected the list of videos and their classes")
    reader = READERS[detect(labels) if layout == "auto" else layout]
    try:
        found = reader(labels, split)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise InputError(f"{labels}: cannot be read as a list of videos ({error})") from error
    if not found.rows:
        only = f" of split {split!r}" if split else ""
        raise InputError(f"{labels}: names no video{only}; see `unstill audit --help` for the layouts")
    return list_from_rows(tree, labels, found, classes)


def detect(labels: Path) -> str:
    """The layout of a list, from its name and first line."""
    if labels.is_dir():
        return "hmdb51"
    if labels.suffix == ".json":
        return "diving48"
    if (labels.parent / "classInd.txt").exists():
        return "ucf101"
    with open(labels, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    return "kinetics" if "youtube_id" in first else "list"


def read_kinetics(labels: Path, split: str | None) -> VideoList:
    """The official CSV of Kinetics-400, -600, -700: ``label,youtube_id,time_start,time_end,split``."""
    rows = []
    with open(labels, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := {"label", "youtube_id", "time_start", "time_end"} - set(reader.fieldnames or ()):
            raise InputError(f"{labels}: has no column {min(missing)!r}; expected Kinetics' official CSV with labels")
        for line, row in enumerate(reader, 2):
            if split is not None and row.get("split") != split:
                continue
            video, start, end = row["youtube_id"], _seconds(row["time_start"]), _seconds(row["time_end"])
            if not YOUTUBE_ID.fullmatch(video or "") or start is None or end is None:
                raise InputError(f"{labels}: line {line} has no YouTube id with start and end; mend or remove the line")
            cut = f"{video}_{round(start):06d}_{round(end):06d}"
            rows.append(Row((cut, video), " ".join((row["label"] or "").split()), start, end, maybe_cut=True))
    return VideoList(rows, _sorted_names(rows))


def read_ucf101(labels: Path, split: str | None) -> VideoList:
    """``trainlistNN.txt`` or ``testlistNN.txt`` beside ``classInd.txt``."""
    _refuse_split(labels, split, "name the list file of the split instead, for example trainlist01.txt")
    classes = []
    for line in _lines(labels.parent / "classInd.txt"):
        classes.append(line.split(maxsplit=1)[1] if " " in line else line)
    rows = [Row((name,), name.split("/")[0]) for name in (line.split()[0] for line in _lines(labels))]
    return VideoList(rows, tuple(classes))


def read_hmdb51(labels: Path, split: str | None) -> VideoList:
    """A folder of ``CLASS_test_splitN.txt``; lines ``FILE.avi 0|1|2`` (unused, train, test)."""
    match = re.fullmatch(r"(train|test)([123])", split or "")
    if not match:
        raise InputError(f"{labels}: --split is {split!r}, expected train1 to train3 or test1 to test3 for HMDB51")
    wanted, number = ("1" if match[1] == "train" else "2"), match[2]
    rows, names = [], []
    for path in sorted(labels.glob(f"*_test_split{number}.txt")):
        name = path.name.removesuffix(f"_test_split{number}.txt")
        names.append(name)
        for line in _lines(path):
            file, flag = line.rsplit(maxsplit=1)
            if flag == wanted:
                rows.append(Row((f"{name}/{file}", file), name))
    return VideoList(rows, tuple(names))


def read_diving48(labels: Path, split: str | None) -> VideoList:
    """``Diving48_V2_train.json`` or ``_test.json``; class names from ``Diving48_vocab.json`` beside it, if there."""
    _refuse_split(labels, split, "name the file of the split instead, for example Diving48_V2_train.json")
    entries = json.loads(labels.read_text(encoding="utf-8"))
    try:
        rows = [Row((str(entry["vid_name"]),), str(int(entry["label"]))) for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{labels}: expected a list of objects with vid_name and label ({error!r})") from error
    vocabulary = labels.parent / "Diving48_vocab.json"
    if not vocabulary.exists():
        return VideoList(rows)
    names = ["_".join(map(str, words)) for words in json.loads(vocabulary.read_text(encoding="utf-8"))]
    return VideoList([Row(row.names, _name_of(names, row.label, labels)) for row in rows], tuple(names))


def read_list(labels: Path, split: str | None) -> VideoList:
    """A CSV ``path,label[,start,end]`` with or without that header, or lines ``path label``."""
    _refuse_split(labels, split, "a plain list has no splits")
    lines = _lines(labels)
    if any("," in line for line in lines[:5]):
        cells = list(csv.reader(lines))
    elif any("\t" in line for line in lines[:5]):
        cells = [line.split("\t") for line in lines]
    else:
        cells = [line.rsplit(maxsplit=1) for line in lines]
    columns = ["path", "label", "start", "end"]
    if cells and {"path", "label"} <= {cell.strip().lower() for cell in cells[0]}:
        columns, cells = [cell.strip().lower() for cell in cells[0]], cells[1:]
    rows = []
    for number, row in enumerate(cells, 1):
        fields = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        if len(row) > len(columns) or not fields.get("path") or not fields.get("label"):
            raise InputError(f"{labels}: entry {number} is {','.join(row)!r}, expected path,label[,start,end]")
        times = [_seconds(fields.get(name)) for name in ("start", "end")]
        for name, value in zip(("start", "end"), times, strict=True):
            if fields.get(name) and value is None:
                raise InputError(f"{labels}: entry {number} has {name} {fields[name]!r}, expected seconds")
        start, end = times
        if start is not None and end is not None and end <= start:
            raise InputError(f"{labels}: entry {number} ends at {end:g} s, before it starts at {start:g} s")
        rows.append(Row((fields["path"],), fields["label"], start, end))
    return VideoList(rows)


READERS: dict[str, Callable[[Path, str | None], VideoList]] = {
    "kinetics": read_kinetics,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "diving48": read_diving48,
    "list": read_list,
}


def list_from_rows(
    tree: LocalTree | RemoteTree, labels: Path, found: VideoList, classes: tuple[str, ...] | None
) -> Listing:
    """Find each row's file and number its class; what is not there is missing, what comes again is a duplicate."""
    names = classes or found.classes or _sorted_names(found.rows)
    numbers = class_numbers(names)
    by_number = found.classes is None and all(row.label.isdecimal() for row in found.rows)
    files, root = _Files(tree.files(VIDEO_SUFFIXES)), tree.root
    videos: dict[tuple, SourceVideo] = {}
    missing, duplicates = {}, []
    for row in found.rows:
        if by_number:
            label = int(row.label)
        else:
            label = numbers.get(class_key(row.label), -1)
        if not 0 <= label < len(names):
            raise InputError(f"{labels}: class {row.label!r} is not among the {len(names)} classes; check --classes")
        path = files.find(row)
        video = SourceVideo(path or row.names[0], label, row.start, row.end, row.maybe_cut)
        if video.identity() in videos or video.identity() in missing:
            duplicates.append(video)
        elif path is None:
            missing[video.identity()] = video
        else:
            videos[video.identity()] = video
    if not videos:
        first = next((row.names[0] for row in found.rows), None)
        raise InputError(f"{root}: holds none of the {len(found.rows)} videos that {labels} names (first: {first!r})")

    def ordered(group) -> tuple[SourceVideo, ...]:
        return tuple(sorted(group, key=lambda v: (v.path, v.start or 0.0, v.end or 0.0, v.label)))

    used = {video.path for video in videos.values()}
    return Listing(
        root, names, ordered(videos.values()), ordered(missing.values()), ordered(duplicates), len(files.all - used)
    )


class _Files:
    """All videos of a source, found by path, by path without suffix, and by name alone."""

    def __init__(self, paths: list[str]):
        self.all = set(paths)
        self._by_stem: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for path in paths:
            stem = os.path.splitext(path)[0]
            self._by_stem.setdefault(stem, []).append(path)
            self._by_name.setdefault(os.path.basename(stem), []).append(path)

    def find(self, row: Row) -> str | None:
        for name in row.names:
            name = name.replace("\\", "/").removeprefix("./")
            if name in self.all:
                return name
            stem = os.path.splitext(name)[0] if os.path.splitext(name)[1].lower() in _SUFFIX_LIKE else name
            candidates = self._by_stem.get(stem) or self._by_name.get(os.path.basename(stem)) or []
            if len(candidates) > 1:
                in_class = [c for c in candidates if class_key(row.label) in map(class_key, c.split("/")[:-1])]
                candidates = in_class or candidates
            if candidates:
                return candidates[0]
        return None


_SUFFIX_LIKE = frozenset(".mp4 .avi .mkv .webm .mov .m4v .mpg .mpeg .flv .wmv .3gp".split())


def _sorted_names(rows: list[Row]) -> tuple[str, ...]:
    """Class names when the list does not fix them: sorted; or, when all are numbers, 0 to the largest."""
    labels = {row.label for row in rows}
    if all(label.isdecimal() for label in labels):
        return tuple(str(number) for number in range(max(map(int, labels)) + 1))
    first: dict[str, str] = {}
    for label in sorted(labels):
        first.setdefault(class_key(label), label)
    return tuple(sorted(first.values()))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < 1e7 else None


def _refuse_split(labels: Path, split: str | None, advice: str) -> None:
    if split is not None:
        raise InputError(f"{labels}: --split {split} means nothing here; {advice}")


def _name_of(names: list[str], label: str, labels: Path) -> str:
    if int(label) >= len(names):
        raise InputError(f"{labels}: label {label}, but Diving48_vocab.json names {len(names)} classes")
    return names[int(label)]

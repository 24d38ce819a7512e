"""The lists that people have, each read into rows: which file, which class, which part of it."""

import csv
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bounded_files import parse_json
from ..errors import InputError
from .listing import read_text
from .tree import VIDEO_SUFFIXES

YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_PATH_HEADERS = ("path", "filename", "file", "video", "video_path", "file_name", "filepath")
_LABEL_HEADERS = ("label", "class", "class_name", "label_name")
# the lists of UCF-Crime: CLASS/VIDEO_x264.mp4; and VIDEO_x264.mp4, class, first and last frame of two anomalies or -1
_CRIME, _CRIME_TIMES = re.compile(r"(\w+)/\w+_x264\.mp4"), re.compile(r"(\w+_x264\.mp4)\s+([A-Za-z]+)(?:\s+-?\d+){4}")
_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES, key=len, reverse=True))


@dataclass(frozen=True)
class Row:
    """One line of a list.

    Attributes:
        names: file names or paths to look for, the best first, with or without suffix.
        label: class name, or a number.
        start, end: the part to keep, seconds; None is the whole video.
        cut_name: name of a file that holds only that part, and is used in full.
    """

    names: tuple[str, ...]
    label: str
    start: float | None = None
    end: float | None = None
    cut_name: str | None = None


@dataclass(frozen=True)
class VideoList:
    """What a list says: its rows, and its class names in label order if it fixes them."""

    rows: list[Row]
    classes: tuple[str, ...] | None = None


def detect(labels: Path) -> str:
    """The layout of a list, from its name and content."""
    if labels.is_dir():
        return "hmdb51"
    if labels.suffix == ".json":
        content = _json(labels)
        if isinstance(content, dict):
            return "segments"
        first = content[0] if isinstance(content, list) and content else None
        return "something" if isinstance(first, dict) and "vid_name" not in first else "diving48"
    if (labels.parent / "classInd.txt").exists():
        return "ucf101"
    first = read_text(labels, "a list of videos").lstrip().partition("\n")[0].strip()
    if _CRIME.fullmatch(first) or _CRIME_TIMES.fullmatch(first):
        return "ucfcrime"
    return "kinetics" if "youtube_id" in first else "list"


def read_kinetics(labels: Path, split: str | None) -> VideoList:
    """The official CSV of Kinetics-400, -600, -700: ``label,youtube_id,time_start,time_end,split``.

    ID_START_END.mp4, as downloaders name what they cut, is the part; ID.mp4 is the whole video.
    """
    reader = csv.DictReader(read_text(labels, "a list of videos").splitlines())
    if missing := {"label", "youtube_id", "time_start", "time_end"} - set(reader.fieldnames or ()):
        raise InputError(f"{labels}: has no column {min(missing)!r}; expected Kinetics' official CSV with labels")
    rows, splits = [], set()
    for line, row in enumerate(reader, 2):
        splits.add(row.get("split") or "")
        if split is not None and row.get("split") != split:
            continue
        video, start, end = row["youtube_id"], _seconds(row["time_start"]), _seconds(row["time_end"])
        if not YOUTUBE_ID.fullmatch(video or "") or start is None or end is None:
            raise InputError(f"{labels}: line {line} has no YouTube id with start and end; correct or remove the line")
        label = " ".join((row["label"] or "").split())
        if not label:
            raise InputError(f"{labels}: line {line} has no label; expected a list with labels")
        rows.append(Row((video,), label, start, end, f"{video}_{round(start):06d}_{round(end):06d}"))
    if not rows:
        _no_such_split(labels, split, splits)
    return VideoList(rows)


def read_ucf101(labels: Path, split: str | None) -> VideoList:
    """``trainlistNN.txt`` or ``testlistNN.txt`` next to ``classInd.txt``."""
    _refuse_split(labels, split, "name the list file of the split instead, for example trainlist01.txt")
    classes = []
    for _, line in _lines(labels.parent / "classInd.txt"):
        classes.append(line.split(maxsplit=1)[1] if " " in line else line)
    rows = []
    for number, line in _lines(labels):
        name = re.sub(r"\s+\d+$", "", line)
        if "/" not in name:
            raise InputError(f"{labels}: line {number} is {line!r}, expected CLASS/VIDEO.avi, or that and a number")
        rows.append(Row((name,), name.split("/")[-2]))
    return VideoList(rows, tuple(classes))


def read_hmdb51(labels: Path, split: str | None) -> VideoList:
    """A folder of ``CLASS_test_splitN.txt``; lines ``FILE.avi 0|1|2`` (unused, train, test)."""
    there = sorted(
        {match[1] for path in labels.glob("*_test_split*.txt") if (match := re.search(r"(\d)\.txt$", path.name))}
    )
    match = re.fullmatch(r"(train|test)([123])", split or "")
    if not match or match[2] not in there:
        known = ", ".join(f"{part}{number}" for number in there or "123" for part in ("train", "test"))
        raise InputError(
            f"{labels}: --split is {split!r}, expected train1 to train3 or test1 to test3; there are {known}"
        )
    wanted, number = ("1" if match[1] == "train" else "2"), match[2]
    rows, names = [], []
    for path in sorted(labels.glob(f"*_test_split{number}.txt")):
        name = path.name.removesuffix(f"_test_split{number}.txt")
        names.append(name)
        for line_number, line in _lines(path):
            file, _, flag = line.rpartition(" ")
            if flag not in ("0", "1", "2") or not file.strip():
                raise InputError(
                    f"{path}: line {line_number} is {line!r}, expected FILE.avi and 0 (unused), 1 (train) or 2 (test)"
                )
            if flag == wanted:
                rows.append(Row((f"{name}/{file.strip()}",), name))
    return VideoList(rows, tuple(names))


def read_diving48(labels: Path, split: str | None) -> VideoList:
    """``Diving48_V2_train.json`` or ``_test.json``; class names from ``Diving48_vocab.json`` next to it, if there."""
    _refuse_split(labels, split, "name the file of the split instead, for example Diving48_V2_train.json")
    try:
        rows = [Row((str(entry["vid_name"]),), str(int(entry["label"]))) for entry in _json(labels)]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{labels}: expected a list of objects with vid_name and label ({error!r})") from error
    vocabulary = labels.parent / "Diving48_vocab.json"
    if not vocabulary.exists():
        return VideoList(rows)
    names = ["_".join(map(str, words)) for words in _json(vocabulary)]
    if beyond := [row.label for row in rows if int(row.label) >= len(names)]:
        raise InputError(f"{labels}: label {beyond[0]}, but {vocabulary.name} names {len(names)} classes")
    return VideoList([Row(row.names, names[int(row.label)]) for row in rows], tuple(names))


def read_something(labels: Path, split: str | None) -> VideoList:
    """Something-Something v2: ``train.json`` or ``validation.json``, and the file of all labels next to it, if there.

    An entry's class is its template without the brackets: "Holding [something]" is "Holding something".
    """
    _refuse_split(labels, split, "name the file of the split instead, for example something-something-v2-train.json")
    rows = []
    for number, entry in enumerate(_json(labels), 1):
        template = entry.get("template") if isinstance(entry, dict) else None
        if not isinstance(template, str) or "id" not in entry:
            raise InputError(f"{labels}: entry {number} has no id with a template; expected Something-Something's JSON")
        rows.append(Row((str(entry["id"]),), re.sub(r"[\[\]]", "", template)))
    for name in ("something-something-v2-labels.json", "labels.json"):
        if (labels.parent / name).exists():
            numbers = _json(labels.parent / name)
            try:
                return VideoList(rows, tuple(sorted(numbers, key=lambda label: int(numbers[label]))))
            except (TypeError, ValueError, KeyError) as error:
                raise InputError(f"{labels.parent / name}: expected an object of labels and numbers") from error
    return VideoList(rows)


def read_segments(labels: Path, split: str | None) -> VideoList:
    """JSON with segments in seconds, as ActivityNet, COIN and THUMOS14 have it.

    ``{"database": {ID: {"subset": ..., "annotations": [{"segment": [start, end], "label": ...}]}}}``; the file is ID or
    v_ID. COIN writes ``annotation`` with labels of steps, and the class of the whole video next to it, which is taken.
    """
    content = _json(labels)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise InputError(f"{labels}: has no object called database; expected the JSON of ActivityNet, COIN or THUMOS14")
    rows, splits = [], set()
    for video, about in database.items():
        splits.add(str(about.get("subset", "")) if isinstance(about, dict) else "")
        if split is not None and (not isinstance(about, dict) or about.get("subset") != split):
            continue
        try:
            rows += _segments(video, about)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{labels}: video {video!r}: expected segments of two seconds and labels ({error!r})"
            ) from error
    if not rows:
        _no_such_split(labels, split, splits)
    return VideoList(rows)


def _segments(video: str, about: dict) -> Iterable[Row]:
    names = (video, f"v_{video}")
    if "class" in about and "annotation" in about:  # COIN: start and end of the activity are next to its class
        yield Row(names, str(about["class"]), *_segment([about["start"], about["end"]]))
        return
    for part in about.get("annotations", about.get("annotation", ())):
        yield Row(names, str(part["label"]), *_segment(part["segment"]))


def _segment(pair: Any) -> tuple[float, float]:
    start, end = map(float, pair)
    if not 0 <= start < end < 1e7:
        raise ValueError(f"segment {start:g} to {end:g}")
    return start, end


def read_ucfcrime(labels: Path, split: str | None) -> VideoList:
    """UCF-Crime: ``Anomaly_Train.txt``, ``Anomaly_Test.txt``, or the temporal annotation of the test videos.

    Videos are taken whole, for anomalies are looked for in all of a video; the frames that the annotation gives are the
    truth that detections are scored against, not parts to cut. All normal videos are one class, "Normal".
    """
    _refuse_split(labels, split, "name the list file of the split instead, for example Anomaly_Train.txt")
    rows = []
    for number, line in _lines(labels):
        if match := _CRIME.fullmatch(line):
            label = match[1]
        elif match := _CRIME_TIMES.fullmatch(line):
            label, line = match[2], match[1]
        else:
            raise InputError(
                f"{labels}: line {number} is {line!r}, expected CLASS/VIDEO_x264.mp4, or VIDEO_x264.mp4, a class and "
                "four numbers of frames"
            )
        rows.append(Row((line,), "Normal" if "normal" in label.lower() else label))
    return VideoList(rows)


def read_list(labels: Path, split: str | None) -> VideoList:
    """A CSV ``path,label[,start,end]`` with or without such a header, or lines ``path label``."""
    _refuse_split(labels, split, "a plain list has no splits")
    numbered = _lines(labels)
    if not numbered:
        return VideoList([])
    cells = _cells([line for _, line in numbered])
    columns, numbers = ["path", "label", "start", "end"], [number for number, _ in numbered]
    head = [_header(cell) for cell in cells[0]]
    if "path" in head and "label" in head:
        columns, cells, numbers = head, cells[1:], numbers[1:]
    rows = []
    for number, row in zip(numbers, cells, strict=True):
        fields = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        if len(row) > len(columns) or not fields.get("path") or not fields.get("label"):
            raise InputError(f"{labels}: line {number} is {','.join(row)!r:.200}, expected path,label[,start,end]")
        times = [_seconds(fields.get(name)) for name in ("start", "end")]
        for name, value in zip(("start", "end"), times, strict=True):
            if fields.get(name) and value is None:
                raise InputError(f"{labels}: line {number} has {name} {fields[name]!r}, expected seconds")
        start, end = times
        if start is not None and end is not None and end <= start:
            raise InputError(f"{labels}: line {number} ends at {end:g} s, before it starts at {start:g} s")
        rows.append(Row((fields["path"],), fields["label"], start, end))
    return VideoList(rows)


def _header(cell: str) -> str:
    name = cell.strip().lower()
    return "path" if name in _PATH_HEADERS else "label" if name in _LABEL_HEADERS else name


def _cells(lines: list[str]) -> list[list[str]]:
    """The fields of each line. What follows the video's suffix says what separates them: names may hold commas."""
    spaced = [re.fullmatch(rf"(.*?(?:{_SUFFIX}))\s+(\S.*)", line, re.IGNORECASE) for line in lines]
    if None not in spaced and not any(re.search(rf"(?:{_SUFFIX})\"?,", line, re.IGNORECASE) for line in lines):
        return [list(match.groups()) for match in spaced if match]
    if any("," in line for line in lines[:5]):
        return list(csv.reader(lines))
    if any("\t" in line for line in lines[:5]):
        return [line.split("\t") for line in lines]
    return [line.rsplit(maxsplit=1) for line in lines]


READERS: dict[str, Callable[[Path, str | None], VideoList]] = {
    "kinetics": read_kinetics,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "diving48": read_diving48,
    "something": read_something,
    "segments": read_segments,
    "ucfcrime": read_ucfcrime,
    "list": read_list,
}


def _lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines that are not blank."""
    lines = read_text(path, "a list of videos").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _json(path: Path) -> Any:
    return parse_json(read_text(path, "a list of videos"))


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < 1e7 else None


def _refuse_split(labels: Path, split: str | None, advice: str) -> None:
    if split is not None:
        raise InputError(f"{labels}: --split {split} means nothing here; {advice}")


def _no_such_split(labels: Path, split: str | None, splits: set[str]) -> None:
    if split is not None and splits:
        known = ", ".join(sorted(name or "(none)" for name in splits))
        raise InputError(f"{labels}: names no video of split {split!r}; its splits are {known}")

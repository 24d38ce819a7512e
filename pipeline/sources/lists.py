"""Layouts in which a list says what class each video is: its videos are found below the root, and never guessed."""

import csv
import os
import re
import unicodedata
from pathlib import Path

from ..errors import InputError
from ..safe_text import is_text, printable
from .list_readers import READERS, Row, VideoList, detect
from .listing import ClassNames, Listing, SourceVideo
from .tree import VIDEO_SUFFIXES, LocalTree, RemoteTree

MAX_CLASS_NUMBER = 100_000  # a larger one is no class number but something else in the wrong column


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
    try:
        found = READERS[detect(labels) if layout == "auto" else layout](labels, split)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, csv.Error) as error:
        raise InputError(f"{labels}: cannot be read as a list of videos ({error})") from error
    for row in found.rows:
        if not all(is_text(text) for text in (*row.names, row.label)):
            raise InputError(f"{labels}: {printable(row.names[0])!r} of class {printable(row.label)!r} is no UTF-8")
    if not found.rows:
        only = f" of split {split!r}" if split else ""
        raise InputError(f"{labels}: names no video{only}; see `unstill audit --help` for the layouts")
    return _list_from_rows(tree, labels, found, classes)


def _list_from_rows(
    tree: LocalTree | RemoteTree, labels: Path, found: VideoList, classes: tuple[str, ...] | None
) -> Listing:
    """Find each row's file and number its class; what is not there is missing, what comes again is a duplicate."""
    names = classes or found.classes or sorted_names({row.label for row in found.rows}, labels)
    number = class_lookup(names, {row.label for row in found.rows}, labels)
    files, root = _Files(tree.files(VIDEO_SUFFIXES)), tree.root
    videos: dict[tuple, SourceVideo] = {}
    missing, duplicates = {}, []
    for row in found.rows:
        video = files.find(row, number[row.label])
        if video.identity() in videos or video.identity() in missing:
            duplicates.append(video)
        elif video.path not in files.all or video.candidates:
            missing[video.identity()] = video
        else:
            videos[video.identity()] = video
    if not videos:
        first = next(iter(missing.values()))
        reason = f"may be {' or '.join(first.candidates)}" if first.candidates else "is not there"
        count = len(found.rows)
        raise InputError(
            f"{root}: holds none of the {count} videos that {labels} names (first: {first.path!r} {reason})"
        )

    def ordered(group) -> tuple[SourceVideo, ...]:
        return tuple(sorted(group, key=lambda v: (v.path, v.start or 0.0, v.end or 0.0, v.label)))

    used = {video.path for video in videos.values()}
    return Listing(
        root,
        tuple(names),
        ordered(videos.values()),
        ordered(missing.values()),
        ordered(duplicates),
        len(files.all - used),
        tree.overlooked(),
    )


def sorted_names(labels: set[str], source: object) -> tuple[str, ...]:
    """Class names when nothing fixes them: sorted; or, when all are numbers, 0 to the largest.

    Args:
        labels: every class that is named.
        source: what names them, for the message.

    Raises:
        InputError: a number is too large for a class.
    """
    if all(label.isdecimal() for label in labels):
        if (longest := max(map(len, labels))) > 100:
            raise InputError(f"{source}: a class number of {longest:,} digits, expected less than {MAX_CLASS_NUMBER:,}")
        largest = max(labels, key=int)
        if int(largest) >= MAX_CLASS_NUMBER:
            raise InputError(
                f"{source}: class number {largest}, expected less than {MAX_CLASS_NUMBER:,}; if they are names, "
                "list all of them with --classes"
            )
        return tuple(map(str, range(int(largest) + 1)))
    return tuple(sorted({unicodedata.normalize("NFC", label) for label in labels}))


def class_lookup(names: tuple[str, ...], labels: set[str], source: object) -> dict[str, int]:
    """The number of each label.

    Numbers are positions only where no class name is a number: where class names are numbers, they are names.

    Raises:
        InputError: a label is not among the names, or may be several of them.
    """
    numbers = all(label.isdecimal() and len(label) <= 100 for label in labels)
    positions = numbers and not any(name.isdecimal() for name in names)
    known, number = ClassNames(names), {}
    for label in sorted(labels):
        if positions:
            if int(label) >= len(names):
                raise InputError(f"{source}: class {label!r} is not among the {len(names)} classes; check --classes")
            number[label] = int(label)
            continue
        try:
            number[label] = known.number(label)
        except ValueError as error:
            raise InputError(f"{source}: class {error}") from error
    return number


class _Files:
    """All videos of a source.

    A listed path is a file's if it is the file's, or if one of both is the end of the other ("a/1.mp4" and
    "videos/a/1.mp4"), with or without the suffix. Several such files leave open which one is meant.
    """

    def __init__(self, paths: list[str]):
        self.all = set(paths)
        self._by_name: dict[str, list[str]] = {}
        for path in paths:
            self._by_name.setdefault(_stem(path).rpartition("/")[2], []).append(path)

    def find(self, row: Row, label: int) -> SourceVideo:
        """The row's video; its path is not in ``all``, or it has candidates, when it is missing."""
        for name, is_part in ((row.cut_name, True), *((name, False) for name in row.names)):
            if name is None:
                continue
            found = self._matching(_plain(name))
            start, end = (None, None) if is_part else (row.start, row.end)
            if len(found) == 1:
                return SourceVideo(found[0], label, start, end)
            if found:
                return SourceVideo(_plain(name), label, start, end, candidates=tuple(sorted(found)))
        return SourceVideo(_plain(row.cut_name or row.names[0]), label, row.start, row.end)

    def _matching(self, name: str) -> list[str]:
        if name in self.all:
            return [name]
        same = [path for path in self._by_name.get(_stem(name).rpartition("/")[2], ()) if _one_ends_other(path, name)]
        exact = [path for path in same if path.rpartition("/")[2] == name.rpartition("/")[2]]
        found = exact or same
        longest = max((_shared(path, name) for path in found), default=0)
        return [path for path in found if _shared(path, name) == longest]


def _plain(name: str) -> str:
    return re.sub(r"^(\./)+|^/+", "", name.replace("\\", "/"))


def _stem(path: str) -> str:
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in VIDEO_SUFFIXES else path


def _one_ends_other(path: str, name: str) -> bool:
    a, b = f"/{_stem(path)}", f"/{_stem(name)}"
    return a.endswith(b) or b.endswith(a)


def _shared(path: str, name: str) -> int:
    """Components that the ends of both have in common."""
    return min(path.count("/"), name.count("/")) + 1

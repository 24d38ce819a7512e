"""Which videos a source holds, and what class each one is: the listing, and the layout with one folder a class.

``lists.py`` finds the videos that a list names, ``list_readers.py`` reads the lists, ``tars.py`` existing WebDataset
tars; ``layouts.py`` chooses.
"""

import os
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from .tree import VIDEO_SUFFIXES, LocalTree, RemoteTree


@dataclass(frozen=True)
class SourceVideo:
    """One video to convert.

    Attributes:
        path: below the source's root, with "/"; what the reports name.
        label: position in ``Listing.classes``.
        start, end: the part to keep, seconds; None is the whole video.
        offset, length: where the video is in the file ``path``; length None is the whole file.
        name: what the key is made of, when that is not the path (a video inside a tar).
        candidates: of a video that a list names but that cannot be told among several: their paths.
    """

    path: str
    label: int
    start: float | None = None
    end: float | None = None
    offset: int = 0
    length: int | None = None
    name: str | None = None
    candidates: tuple[str, ...] = ()

    def identity(self) -> tuple:
        """What makes it another video: file, place in it, part."""
        return (self.path, self.offset, self.start, self.end)


@dataclass(frozen=True)
class Listing:
    """Everything a source offers, in a fixed order.

    Attributes:
        root: the folder, or the address, that the paths are relative to.
        classes: class names in label order.
        videos: videos found, ordered by path and part.
        missing: videos that a list names but that are not there.
        outside: videos behind links that leave the root, which are not followed.
        duplicates: videos that a list names again, with the same or another class; only the first counts.
        unlisted: number of video files that the list does not name.
        overlooked: files that were not looked at: why, how many, the first one.
        warnings: what looks like a mistake, one line each.
    """

    root: Path | str
    classes: tuple[str, ...]
    videos: tuple[SourceVideo, ...]
    missing: tuple[SourceVideo, ...] = ()
    duplicates: tuple[SourceVideo, ...] = ()
    unlisted: int = 0
    overlooked: tuple[tuple[str, int, str], ...] = ()
    warnings: tuple[str, ...] = ()
    outside: tuple[SourceVideo, ...] = ()

    def empty_classes(self) -> list[str]:
        """Names of the classes without a single video."""
        seen = {video.label for video in self.videos}
        return [name for label, name in enumerate(self.classes) if label not in seen]


def list_class_folders(tree: LocalTree | RemoteTree, classes: tuple[str, ...] | None = None) -> Listing:
    """List ``<class>/**/*.<video suffix>``; classes in sorted order.

    Args:
        tree: the source's files.
        classes: fixes the label set; a class folder that it does not name is an error.

    Raises:
        InputError: no class folders, no videos, or a folder that ``classes`` does not name.
    """
    found = tree.folders()
    files = tree.files(VIDEO_SUFFIXES)
    if not found:
        hint = "videos lie directly in it; " if files else ""
        raise InputError(f"{tree.root}: has no class folders; {hint}expected {tree.root}/<class>/<video>.mp4")
    names = classes if classes is not None else tuple(found)
    labels = ClassNames(names)
    label_of = {}
    for name in found:
        try:
            label_of[name] = labels.number(name)
        except ValueError as error:
            raise InputError(f"{tree.root}/{name}: class {error}") from error
    videos = [SourceVideo(path, label_of[path.partition("/")[0]]) for path in files if "/" in path]
    if not videos:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"{tree.root}: no videos in its {len(found)} class folders; looked for {suffixes}")
    stray = [path for path in files if "/" not in path]
    overlooked = [("in no class folder", len(stray), stray[0])] if stray else []
    warnings = (_splits_as_classes(tree.root, found),) if {name.casefold() for name in found} <= _SPLITS else ()
    return Listing(tree.root, names, tuple(videos), overlooked=(*overlooked, *tree.overlooked()), warnings=warnings)


_SPLITS = frozenset("train training trainval val valid validate validation test testing".split())


def _splits_as_classes(root: Path | str, found: list[str]) -> str:
    return (
        f"the classes are called {', '.join(found)}: if these are the parts of a dataset, convert each by itself, for "
        f"example `unstill convert {root}/{found[0]} OUT/{found[0]}`"
    )


class ClassNames:
    """Looks up class names: as they are, else by their cleaned spelling where that means one class only.

    Args:
        names: in label order; all are different.
    """

    def __init__(self, names: tuple[str, ...]):
        self.names = names
        self._exact = {unicodedata.normalize("NFC", name): label for label, name in enumerate(names)}
        self._cleaned: dict[str, list[int]] = {}
        for label, name in enumerate(names):
            self._cleaned.setdefault(class_key(name), []).append(label)

    def number(self, name: str) -> int:
        """The label of a class.

        Raises:
            ValueError: there is no such class, or it cannot be told among several; the message names it.
        """
        exact = self._exact.get(unicodedata.normalize("NFC", name))
        if exact is not None:
            return exact
        similar = self._cleaned.get(class_key(name), [])
        if len(similar) == 1:
            return similar[0]
        if similar:
            raise ValueError(f"{name!r} may be {' or '.join(repr(self.names[n]) for n in similar)}; write it like one")
        raise ValueError(f"{name!r} is not among the {len(self.names)} classes; check --classes")


def class_key(name: str) -> str:
    """The spelling by which similar names are found: "Air drumming", "air_drumming" and "air-drumming" have one.

    Letters with their marks, digits, signs such as + and a minus before a number, and # count; other punctuation does
    not: "C", "C++" and "C#" are three.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    kept = [c if unicodedata.category(c)[0] in "LMNS" or c == "#" else " " for c in text]
    if re.match(r"[-\u2212][0-9.]", text):
        kept[0] = "-"
    return "_".join("".join(kept).split()) or name


def read_text(path: Path, what: str) -> str:
    """The text of a UTF-8 file, without the byte order mark that some programs put first.

    Args:
        what: the file should be, for the message.

    Raises:
        InputError: it cannot be read, or is no UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as {what} ({os.strerror(error.errno or 0)})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read as {what}: it is not UTF-8 at byte {error.start}") from error


def keep_only(listing: Listing, ids: Path) -> Listing:
    """The videos whose file name, or its first 11 characters (a YouTube id), is a line of the text file ``ids``.

    Classes that lose all their videos leave the label set: Mini-Kinetics-200 is such a list over Kinetics-400.

    Raises:
        InputError: no such file, or nothing is left.
    """
    wanted = {line.strip() for line in read_text(ids, "a list of video ids").splitlines() if line.strip()}

    def kept(videos: tuple[SourceVideo, ...]) -> list[SourceVideo]:
        stems = [os.path.splitext(os.path.basename(video.name or video.path))[0] for video in videos]
        return [v for v, stem in zip(videos, stems, strict=True) if stem in wanted or stem[:11] in wanted]

    videos, missing = kept(listing.videos), kept(listing.missing)
    if not videos:
        raise InputError(f"{ids}: names none of the {len(listing.videos)} videos of {listing.root}; one id a line")
    labels = sorted({video.label for video in (*videos, *missing)})
    renumbered = {old: new for new, old in enumerate(labels)}
    return replace(
        listing,
        classes=tuple(listing.classes[label] for label in labels),
        videos=tuple(replace(video, label=renumbered[video.label]) for video in videos),
        missing=tuple(replace(video, label=renumbered[video.label]) for video in missing),
        duplicates=(),
    )

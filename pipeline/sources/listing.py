"""Which videos a source holds, and what class each one is: the listing, and the layout with one folder a class.

``source_lists.py`` reads the layouts with a list (Kinetics, UCF101, HMDB51, Diving48, CSV), ``source_shards.py``
existing WebDataset tars; ``list_source`` in ``convert.py`` chooses.
"""

import os
import re
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
        maybe_cut: the file may hold nothing but that part already (Kinetics downloads come both ways); it is taken
            whole when it is no longer than the part.
        offset, length: where the video lies in the file ``path``; length None is the whole file.
        name: what the key is made of, when that is not the path (a video inside a tar).
    """

    path: str
    label: int
    start: float | None = None
    end: float | None = None
    maybe_cut: bool = False
    offset: int = 0
    length: int | None = None
    name: str | None = None

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
        duplicates: videos that a list names again, with the same or another class; only the first counts.
        unlisted: number of video files that the list does not name.
    """

    root: Path | str
    classes: tuple[str, ...]
    videos: tuple[SourceVideo, ...]
    missing: tuple[SourceVideo, ...] = ()
    duplicates: tuple[SourceVideo, ...] = ()
    unlisted: int = 0

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
    labels = class_numbers(names)
    if unknown := [name for name in found if class_key(name) not in labels]:
        raise InputError(
            f"{tree.root}/{unknown[0]}: class {unknown[0]!r} is not in the given list of {len(names)} classes"
        )
    label_of = {name: labels[class_key(name)] for name in found}
    videos = [SourceVideo(path, label_of[path.partition("/")[0]]) for path in files if "/" in path]
    if not videos:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InputError(f"{tree.root}: no videos in its {len(found)} class folders; looked for {suffixes}")
    return Listing(tree.root, names, tuple(videos))


def class_key(name: str) -> str:
    """The spelling by which class names are compared: "Air drumming", "air_drumming" and "air-drumming" are one."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_") or name


def class_numbers(names: tuple[str, ...]) -> dict[str, int]:
    """``class_key`` -> label.

    Raises:
        InputError: two names differ only in case, spaces or punctuation.
    """
    numbers: dict[str, int] = {}
    for label, name in enumerate(names):
        if (other := numbers.setdefault(class_key(name), label)) != label:
            raise InputError(f"classes {names[other]!r} and {name!r} differ in punctuation alone; rename one")
    return numbers


def keep_only(listing: Listing, ids: Path) -> Listing:
    """The videos whose file name, or its first 11 characters (a YouTube id), is a line of the text file ``ids``.

    Classes that lose all their videos leave the label set: Mini-Kinetics-200 is such a list over Kinetics-400.

    Raises:
        InputError: no such file, or nothing is left.
    """
    try:
        wanted = {line.strip() for line in Path(ids).read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{ids}: cannot be read as a list of video ids ({type(error).__name__})") from error

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

"""Which videos a source holds, and what class each one is."""

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError

# Only decides which files are looked at: what a file is, its content says.
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .ts .m2ts .mts .flv .wmv .asf .3gp .3g2 .ogv .ogg .vob .ivf".split()
)


@dataclass(frozen=True)
class SourceVideo:
    """One video to convert.

    Attributes:
        path: below the source's root, with "/"; what the reports name.
        label: position in ``Listing.classes``.
        start, end: the part to keep, seconds; None is the whole video.
    """

    path: str
    label: int
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Listing:
    """Everything a source offers, in a fixed order.

    Attributes:
        root: the folder that the paths are relative to.
        classes: class names in label order.
        videos: videos found, ordered by path, start, end.
        missing: videos that a list names but that are not there.
    """

    root: Path
    classes: tuple[str, ...]
    videos: tuple[SourceVideo, ...]
    missing: tuple[SourceVideo, ...] = ()

    def empty_classes(self) -> list[str]:
        """Names of the classes without a single video."""
        seen = {video.label for video in self.videos}
        return [name for label, name in enumerate(self.classes) if label not in seen]


def list_class_folders(root: Path, classes: tuple[str, ...] | None = None) -> Listing:
    """List ``root/<class>/**/*.<video suffix>``; classes in sorted order.

    Args:
        root: the folder.
        classes: fixes the label set; a class folder that it does not name is an error.

    Raises:
        InputError: no such folder, no class folders, no videos, or a folder that ``classes`` does not name.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: {'not a folder' if root.exists() else 'no such folder'}; expected one folder a class"
        )
    found = {entry.name: entry.path for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")}
    if not found:
        hint = "videos lie directly in it; " if any(_is_video(e.name) for e in os.scandir(root)) else ""
        raise InputError(f"{root}: has no class folders; {hint}expected {root.name}/<class>/<video>.mp4")
    names = classes if classes is not None else tuple(sorted(found))
    if unknown := sorted(set(found) - set(names)):
        raise InputError(f"{root / unknown[0]}: class {unknown[0]!r} is not in the given list of {len(names)} classes")
    videos = []
    for label, name in enumerate(names):
        if name in found:
            videos += [SourceVideo(f"{name}/{path}", label) for path in _videos_below(found[name])]
    if not videos:
        raise InputError(
            f"{root}: no videos in its {len(found)} class folders; looked for {', '.join(sorted(VIDEO_SUFFIXES))}"
        )
    return Listing(root, names, tuple(sorted(videos, key=lambda v: v.path)))


def _videos_below(folder: str) -> list[str]:
    """Paths of videos relative to ``folder``; hidden files and links that lead to folders are left out."""
    found, pending = [], [""]
    while pending:
        below = pending.pop()
        for entry in os.scandir(os.path.join(folder, below)):
            if entry.name.startswith("."):
                continue
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif _is_video(entry.name) and not entry.is_dir():
                found.append(path)
    return found


def _is_video(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES

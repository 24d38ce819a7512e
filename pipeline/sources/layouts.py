"""Which layout a source has, and the options that every command on sources shares."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ..bounded_files import parse_json
from ..errors import InputError
from ..safe_text import is_text
from .listing import Listing, keep_only, list_class_folders, read_text
from .lists import list_with_labels
from .tars import list_shards
from .tree import open_tree


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where videos come from and which class each one is."""

    source: Annotated[str | Path, Positional, arg(metavar="SOURCE")]
    """Folder with the videos: one folder a class, or anywhere below when --labels lists them, or WebDataset tars."""
    layout: Literal[
        "auto",
        "folders",
        "webdataset",
        "kinetics",
        "ucf101",
        "hmdb51",
        "diving48",
        "something",
        "segments",
        "ucfcrime",
        "list",
    ] = "auto"
    """What kind of source it is; auto looks at the folder and the list."""
    labels: Path | None = None
    """List of videos and classes of Kinetics, UCF101, HMDB51, Diving48, Something-Something v2, ActivityNet, COIN,
    THUMOS14 or UCF-Crime, lines "path label" as SlowFast and mmaction2 have them, or a CSV path,label[,start,end]
    (seconds)."""
    split: str | None = None
    """Part of the list to take, in the list's own words: train, validate, test for Kinetics; train1 to test3 for
    HMDB51; training, validation, testing for ActivityNet. A wrong one is answered by those that there are."""
    only: Path | None = None
    """Text file of video ids, one a line, to take no others; Mini-Kinetics-200 is such a list."""
    classes: Path | None = None
    """Text file with one class a line, or the dataset.json of another dataset: fixes the label set and its order."""
    follow_links: bool = False
    """Take videos behind links that lead out of the source; otherwise they are quarantined. In a folder from somebody
    else such a link can name any file of yours."""
    allow_missing: bool = False
    """Go on when classes are left without a single video."""


def list_source(config: SourceConfig) -> Listing:
    """List the source and check that no class is empty.

    Raises:
        InputError: the source or its list cannot be used; or classes are empty and ``allow_missing`` is off.
    """
    listing = find_videos(config)
    if not config.allow_missing and (problem := shrunken_label_set(listing)):
        raise InputError(f"{config.source}: {problem}")
    return listing


def shrunken_label_set(listing: Listing) -> str:
    """One line about the classes without a single video; empty when there are none."""
    empty = listing.empty_classes()
    if not empty:
        return ""
    names = ", ".join(map(repr, empty[:3])) + (", ..." if len(empty) > 3 else "")
    counts = f"{len(empty)} of {len(listing.classes)} classes have no video ({names})"
    if listing.outside:
        counts += f", {len(listing.outside)} videos are behind links that leave the source (--follow-links takes them)"
    return f"{counts}; add the videos or pass --allow-missing"


def find_videos(config: SourceConfig) -> Listing:
    """List the source by its layout.

    Raises:
        InputError: the source or its list cannot be used.
    """
    classes = read_classes(config.classes) if config.classes is not None else None
    tree, layout = open_tree(config.source, config.follow_links), config.layout
    if (config.labels is None) != (layout in ("auto", "folders", "webdataset")) and layout != "auto":
        need = "needs --labels" if config.labels is None else "takes no --labels"
        raise InputError(f"layout {layout} {need}")
    if config.labels is not None:
        listing = list_with_labels(tree, Path(config.labels), layout, config.split, classes)
    elif layout == "webdataset" or (
        layout == "auto" and any("/" not in name for name in tree.files(frozenset({".tar"})))
    ):
        listing = list_shards(tree, classes)
    else:
        listing = list_class_folders(tree, classes)
    if config.only is not None:
        listing = keep_only(listing, config.only)
    beyond = tree.outside()
    inside = tuple(video for video in listing.videos if video.path not in beyond) if beyond else listing.videos
    return replace(listing, videos=inside, outside=tuple(video for video in listing.videos if video.path in beyond))


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names from a text file (one a line) or from another dataset's ``dataset.json``.

    Raises:
        InputError: no such file, no names, or a name twice.
    """
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder; expected its dataset.json, or a text file with one class a line")
    text = read_text(path, "a list of classes")
    if Path(path).suffix == ".json":
        try:
            names = parse_json(text)["classes"]
            if not isinstance(names, list) or not all(isinstance(name, str) and is_text(name) for name in names):
                raise ValueError("no list of texts")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: has no list named classes; expected a dataset.json") from error
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names or len(set(names)) != len(names):
        raise InputError(f"{path}: {'a class is named twice' if names else 'names no class'}; expected one name a line")
    return tuple(names)

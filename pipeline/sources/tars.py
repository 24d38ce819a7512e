"""Existing WebDataset tars as a source: each sample's video, with its class from ``.cls`` or ``.json``.

Read with the same care as any untrusted shard: nothing is unpacked, unpickled or executed.
"""

from pathlib import Path

from ..bounded_files import open_plain, parse_json
from ..errors import InputError
from ..safe_text import is_text, printable
from ..shards.reader import Malformed, Member, members, read_member
from .listing import Listing, SourceVideo
from .lists import class_lookup, sorted_names
from .tree import LocalTree, RemoteTree, has_suffix, is_video

MAX_TEXT = 1 << 20  # bytes of a label component


def list_shards(tree: LocalTree | RemoteTree, classes: tuple[str, ...] | None = None) -> Listing:
    """List the videos in all ``.tar`` files of a local source.

    A sample is a run of members with one key. Its class is the name in KEY.json (``class``, ``label`` or ``cls``), else
    the content of KEY.cls, else a number in KEY.json.

    Raises:
        InputError: a tar cannot be read to its end, a sample has no class, two members of one name or two videos, or
            there are no tars or no videos.
    """
    root = tree.root
    if not isinstance(root, Path):
        raise InputError(f"{root}: WebDataset tars are converted from a local folder only; copy them first")
    tars = [tar for tar in tree.files(frozenset({".tar"})) if tar not in tree.outside()]
    if not tars:
        links = f" but {len(tree.outside())} links that leave it (--follow-links)" if tree.outside() else ""
        raise InputError(f"{root}: holds no .tar files{links}; expected WebDataset shards")
    found: list[tuple[str, Member, str]] = []
    for tar in tars:
        found += _videos_of(root, tar)
    if not found:
        raise InputError(f"{root}: no video in its {len(tars)} tar files")
    labels = {label for _, _, label in found}
    classes = classes or sorted_names(labels, root)
    number = class_lookup(classes, labels, root)
    videos = tuple(
        SourceVideo(tar, number[label], offset=member.offset, length=member.size, name=member.name.removeprefix("./"))
        for tar, member, label in found
    )
    beyond = sorted(name for name in tree.outside() if has_suffix(name, frozenset({".tar"})))
    links = (("a link that leaves the source (--follow-links)", len(beyond), beyond[0]),) if beyond else ()
    return Listing(root, classes, videos, overlooked=(*links, *tree.overlooked(frozenset({".tar"}))))


def _videos_of(root: Path, tar: str) -> list[tuple[str, Member, str]]:
    found: list[tuple[str, Member, str]] = []
    try:
        with open(root / tar, "rb", opener=open_plain) as file:
            group: list[Member] = []
            for member in members(file, foreign=True):
                if member.kind:
                    continue
                if group and _split(member.name)[0] != _split(group[0].name)[0]:
                    found += _sample(file, tar, group)
                    group = []
                group.append(member)
            found += _sample(file, tar, group)
    except Malformed as malformed:
        raise InputError(
            f"{root / tar}: byte {malformed.offset}: {malformed.problem}; repair or remove the tar"
        ) from malformed
    except OSError as error:
        raise InputError(f"{root / tar}: cannot be read ({error.strerror})") from error
    return found


def _sample(file, tar: str, group: list[Member]) -> list[tuple[str, Member, str]]:
    videos = [member for member in group if is_video(member.name)]
    if not videos:
        return []
    key = printable(_split(group[0].name)[0])
    names = [member.name for member in group]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{tar}: sample {key!r} has two members called {printable(twice[0])!r}; keys must be unique")
    if len(videos) > 1:
        raise InputError(f"{tar}: sample {key!r} has two videos, {' and '.join(printable(v.name) for v in videos)}")
    by_extension = {_split(member.name)[1]: member for member in group}
    texts = {}
    for extension in ("json", "cls"):
        member = by_extension.get(extension)
        if member is not None and member.size <= MAX_TEXT:
            texts[extension] = read_member(file, member).decode("utf-8", "replace").strip()
    label = _label(texts.get("json", ""), texts.get("cls", ""))
    if label and is_text(label):
        return [(tar, videos[0], label)]
    raise InputError(f"{tar}: sample {key!r} has no class; expected KEY.cls, or a label in KEY.json")


def _split(name: str) -> tuple[str, str]:
    """(key, extension) as WebDataset splits a name: at the first dot after the last slash."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


def _label(about_text: str, cls: str) -> str:
    """The class's name from the JSON, else KEY.cls, else a number from the JSON; empty when none says it."""
    try:
        about = parse_json(about_text)
    except (ValueError, RecursionError):
        about = None
    said = [about.get(name) for name in ("class", "label", "cls")] if isinstance(about, dict) else []
    names = [value for value in said if isinstance(value, str) and value]
    numbers = [str(value) for value in said if type(value) is int]
    return next(iter([*names, *([cls] if cls else []), *numbers]), "")

"""HAT's action swaps: whose human comes before whose background."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..sources.listing import SourceVideo

KINDS = ("random", "same")  # of the backgrounds that are drawn: another class's, the human's own class's
_TRIES = 20  # backgrounds that are tried until one has masks


@dataclass(frozen=True)
class Swap:
    """One swap of a human.

    Attributes:
        kind: as the list says, or one of ``KINDS``.
        candidates: backgrounds to try in turn; one where a list names it.
    """

    kind: str
    candidates: tuple[SourceVideo, ...]


class Swaps:
    """The swaps of every video.

    Args:
        pairs: CSV with the columns human, background and kind, or None: backgrounds are drawn.
        videos: all sources.
        per_video: how many are drawn of each kind.
        seed: of the draw.

    Raises:
        InputError: the list cannot be read, or names a video that is not there.
    """

    def __init__(self, pairs: Path | None, videos: Sequence[SourceVideo], per_video: int, seed: int):
        self._videos, self._per_video, self._seed = videos, per_video, seed
        self._listed = None if pairs is None else _read_pairs(pairs, videos)

    def of(self, video: SourceVideo) -> list[Swap]:
        """The swaps with this video's human; with drawn ones, first all of another class, then all of its own."""
        if self._listed is not None:
            return self._listed.get(video.path, [])
        found = []
        for kind in KINDS:
            others = [o for o in self._videos if o.path != video.path and (o.label == video.label) == (kind == "same")]
            digest = blake2b(f"{self._seed}/{video.path}/{kind}".encode(), digest_size=16).digest()
            order = np.random.default_rng(int.from_bytes(digest)).permutation(len(others)).tolist()
            for k in range(min(self._per_video, len(order))):
                # each begins with its own background, and goes on with those that no other begins with
                tries = [order[k], *order[self._per_video :]][:_TRIES]
                found.append(Swap(kind, tuple(others[n] for n in tries)))
        return found


def like(background: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A video as long and as large as another: played forwards and backwards in turn, and stretched.

    Args:
        background: uint8 (t,h,w,3).
        shape: (T,H,W,3).

    Returns:
        uint8 (T,H,W,3).
    """
    count = len(background)
    there_and_back = np.concatenate([np.arange(count), np.arange(count - 2, 0, -1)])
    picked = background[there_and_back[np.arange(shape[0]) % len(there_and_back)]]
    if picked.shape[1:] == tuple(shape[1:]):
        return picked
    size = shape[2], shape[1]
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in picked])


def _read_pairs(path: Path, videos: Sequence[SourceVideo]) -> dict[str, list[Swap]]:
    by_name = {str(Path(video.path).with_suffix("")): video for video in videos}
    found: dict[str, list[Swap]] = {}
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                human, background = by_name[row["human"]], by_name[row["background"]]
                found.setdefault(human.path, []).append(Swap(row.get("kind") or "listed", (background,)))
    except OSError as error:
        raise InputError(f"{path}: not readable ({error}); expected a CSV with human, background and kind") from None
    except KeyError as error:
        raise InputError(
            f"{path}: no column or video {error}; expected the columns human, background and kind, and videos below "
            "SOURCE without suffix"
        ) from None
    return found

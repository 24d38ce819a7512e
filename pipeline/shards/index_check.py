"""Is an index consistent, and are its shards there and long enough? Asked once, before anything is read with it."""

import hashlib
import os
from pathlib import Path

import numpy as np

from ..bounded_files import open_plain, read_json
from ..errors import InputError
from .index import INDEX_NAME, SampleIndex
from .verified import MANIFEST

_COLUMNS = (
    "shard mp4_offset mp4_bytes init_bytes init_crc frames fps_milli label gop width height codec layers key_end"
).split()


def check_index(index: SampleIndex, root: str | Path) -> None:
    """Refuse an index that would send a reader to the wrong place.

    Raises:
        InputError: the index is empty or contradicts itself, or names a file outside the dataset.
    """
    mp4_bytes, init_bytes = np.asarray(index.mp4_bytes, np.int64), np.asarray(index.init_bytes, np.int64)
    row, ends = np.asarray(index.fragment_row), np.asarray(index.fragment_end, np.int64)
    frames, gop = np.asarray(index.frames, np.int64), np.asarray(index.gop, np.int64)
    consistent = (
        len(index) > 0
        and {getattr(index, name).shape for name in _COLUMNS} == {(len(index),)}
        and row.shape == (len(index) + 1,)
        and index.fragment_crc.shape == ends.shape == (len(ends),)
        and (np.diff(np.asarray(index.key_end), prepend=0) > 0).all()
        and index.key_end[-1] == len(index.key_text)
        and (frames > 0).all()
        and (np.asarray(index.width) > 0).all()
        and (np.asarray(index.height) > 0).all()
        and (gop > 0).all()
        and np.isin(np.asarray(index.layers), (1, 2)).all()
        and (gop[np.asarray(index.layers) == 2] % 2 == 0).all()
        and row[0] == 0
        and row[-1] == len(ends)
        and (np.diff(row) == -(-frames // gop)).all()
        and (np.diff(ends, prepend=0)[~np.isin(np.arange(len(ends)), row[:-1])] > 0).all()
        and (ends[row[:-1]] > init_bytes).all()
        and (ends[row[1:] - 1] <= mp4_bytes).all()
        and (np.asarray(index.mp4_offset) >= 0).all()
        and (np.asarray(index.shard) >= 0).all()
        and (np.asarray(index.shard) < len(index.shard_names)).all()
        and (np.asarray(index.label) >= 0).all()
        and (np.asarray(index.label) < len(index.classes)).all()
    )
    if not consistent:
        raise InputError(f"{root}: the index is empty or contradicts itself; run `unstill convert` again")
    for name in index.shard_names:
        if os.path.isabs(name) or ".." in Path(name).parts or "\0" in name or not name or len(name) > 1024:
            raise InputError(f"{root}: the index names a shard outside the dataset ({name!r:.200}); refused")


def check_manifest(root: Path) -> None:
    """Compare ``index.safetensors`` with what ``dataset.json`` says of it; a folder without one is left alone.

    Raises:
        InputError: the index is another one: labels and places in it may mean anything.
    """
    try:
        manifest = read_json(root / MANIFEST)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{root / MANIFEST}: damaged ({error}); copy the dataset again") from None
    said = manifest.get("index_sha256") if isinstance(manifest, dict) else None
    try:
        with open(root / INDEX_NAME, "rb", opener=open_plain) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return  # the index's own reader says so
    if said is not None and found != said:
        raise InputError(f"{root / INDEX_NAME}: not the index that {MANIFEST} names; copy the dataset again")


def check_shards(index: SampleIndex, root: str | Path, sizes: dict[str, int] | None = None) -> None:
    """Compare the shards with the index.

    Args:
        index: passed ``check_index``.
        root: the dataset.
        sizes: bytes of each shard by name; from the files below ``root`` when None.

    Raises:
        InputError: a shard is missing or shorter than its samples need.
    """
    needed = np.zeros(len(index.shard_names), np.int64)
    np.maximum.at(needed, np.asarray(index.shard), np.asarray(index.mp4_offset) + np.asarray(index.mp4_bytes, np.int64))
    for name, least in zip(index.shard_names, needed.tolist(), strict=True):
        try:
            size = os.stat(Path(root) / name).st_size if sizes is None else sizes[name]
        except (OSError, KeyError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not in dataset.json"
            raise InputError(f"{root}/{name}: the shard cannot be read ({reason}); copy the dataset again") from error
        if size < least:
            raise InputError(f"{root}/{name}: the shard is truncated, {size} bytes of at least {least}; copy it again")

"""Writes one shard: a plain ustar file whose bytes depend on its samples alone."""

import hashlib
import itertools
import json
import tarfile
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..atomic_files import AtomicFile, folder_lock, write_atomic
from ..bounded_files import read_json
from .quarantine import Failure
from .reader import EXTENSIONS

MAX_KEY = 90  # KEY.json must fit the 100 bytes of a ustar name
MANIFEST_VERSION = 2
READABLE_VERSIONS = (1, 2)  # version 1 has no layers


def canonical_json(value: object) -> bytes:
    """JSON with one spelling for one value: sorted keys, ASCII, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


class ShardWriter:
    """Collects the samples and failures of one shard, then publishes tar and manifest.

    A shard is done if and only if its tar and its manifest exist and agree; the manifest comes last.

    Attributes:
        samples: what the manifest says of each sample so far.
        failures: quarantined videos of this shard.
    """

    def __init__(self, folder: Path, shard: int, plan_id: str):
        self.shard, self.plan_id = shard, plan_id
        self.samples: list[dict] = []
        self.failures: list[Failure] = []
        self._manifest = folder / manifest_name(shard)
        self._file = AtomicFile(folder / shard_name(shard))
        self._dali_index: list[str] = []
        self._sha256 = hashlib.sha256()
        self._position = 0

    def add(self, key: str, label: int, class_name: str, source: str, video: dict, mp4: bytes) -> None:
        """Append one sample: KEY.mp4, KEY.gops, KEY.cls, KEY.json.

        Args:
            video: the header that the transcoder returned (frames, fps as [num, den], width, height, codec, gop,
                layers, init_bytes, offsets, source, notes).
        """
        fps = Fraction(*video["fps"])
        fps_milli = round(fps * 1000)
        offsets = video["offsets"]
        table = [video["frames"], fps_milli, label, video["gop"], video["init_bytes"], *offsets]
        about = {
            "key": key,
            "label": label,
            "class": class_name,
            "source": source,
            "frames": video["frames"],
            "fps": float(fps),
            "width": video["width"],
            "height": video["height"],
            "codec": video["codec"],
            "layers": video["layers"],
            "crc32": zlib.crc32(mp4),
            "original": video["source"],
            "notes": video["notes"],
        }
        contents = (mp4, np.array(table, dtype="<i4").tobytes(), b"%d" % label, canonical_json(about))
        offsets_in_tar = [
            self._member(f"{key}.{extension}", content) for extension, content in zip(EXTENSIONS, contents, strict=True)
        ]
        self._dali_index.append(dali_index_line(key, offsets_in_tar, [len(content) for content in contents]))
        offset = offsets_in_tar[0]
        self.samples.append(describe_sample(key, source, offset, mp4, table, about))

    def publish(self) -> None:
        """Write the end of the archive and give tar and manifest their names.

        When another run has published the same shard meanwhile, its files stay. A shard without a sample gets a
        manifest and no tar: some readers refuse an empty archive.
        """
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._position % tarfile.RECORDSIZE))
        self._file.close()
        manifest = {
            "version": MANIFEST_VERSION,
            "plan": self.plan_id,
            "shard": shard_name(self.shard) if self.samples else None,
            "bytes": self._position if self.samples else 0,
            "sha256": self._sha256.hexdigest() if self.samples else None,
            "samples": self.samples,
            "failures": [vars(failure) for failure in self.failures],
        }
        folder = self._manifest.parent
        with folder_lock(folder):
            if not shard_done(folder, self.shard, self.plan_id):
                if self.samples:
                    self._file.commit()
                    write_atomic(folder / dali_index_name(self.shard), dali_index(self._dali_index))
                write_atomic(self._manifest, canonical_json(manifest))
        self._file.discard()

    def discard(self) -> None:
        """Leave nothing behind; harmless after ``publish``."""
        self._file.discard()

    def _member(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)  # owner 0, time 0, mode 0644 are its defaults
        info.size = len(data)
        self._write(info.tobuf(format=tarfile.USTAR_FORMAT))
        offset = self._position
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._position += len(data)


def describe_sample(key: str, source: str, offset: int, mp4: bytes, table: list[int], about: dict) -> dict:
    """What a shard's manifest says of one sample, and what the index is built from.

    Args:
        offset: byte offset of the MP4 in the shard.
        table: the content of KEY.gops.
        about: the content of KEY.json.
    """
    frames, fps_milli, label, gop, init_bytes, *offsets = table
    original = about.get("original")
    new = {name: about[name] for name in ("layers", "notes") if name in about}  # version 1 has none of them
    if isinstance(original, dict) and "sha256" in original:
        new["source_sha256"] = original["sha256"]
    view = memoryview(mp4)
    return {
        "key": key,
        "source": source,
        "offset": offset,
        "bytes": len(mp4),
        "init_bytes": init_bytes,
        "init_crc": zlib.crc32(view[:init_bytes]),
        "fragment_end": offsets[1:],
        "fragment_crc": [zlib.crc32(view[a:b]) for a, b in itertools.pairwise(offsets)],
        "frames": frames,
        "fps_milli": fps_milli,
        "label": label,
        "gop": gop,
        "width": about["width"],
        "height": about["height"],
        "codec": about["codec"],
        **new,
    }


def shard_name(shard: int) -> str:
    """File name of a shard's tar."""
    return f"{shard:05d}.tar"


def dali_index_name(shard: int) -> str:
    """File name of a shard's index for DALI's ``fn.readers.webdataset``."""
    return f"{shard:05d}.idx"


def dali_index_line(key: str, offsets: list[int], sizes: list[int]) -> str:
    """One sample in the format of DALI's ``wds2idx``: component, offset, bytes, member name; four times."""
    components = zip(EXTENSIONS, offsets, sizes, strict=True)
    return " ".join(f"{extension} {offset} {size} {key}.{extension}" for extension, offset, size in components)


def dali_index(lines: list[str]) -> bytes:
    """The index file of a shard, version 1.2."""
    return "\n".join([f"v1.2 {len(lines)}", *lines, ""]).encode()


def manifest_name(shard: int) -> str:
    """File name of a shard's manifest."""
    return f"{shard:05d}.json"


def shard_done(folder: Path, shard: int, plan_id: str) -> bool:
    """Whether the shard's tar and manifest exist, belong to this plan, and agree on the tar's length."""
    manifest = read_manifest(folder, shard)
    if manifest is None or manifest["plan"] != plan_id:
        return False
    if manifest["shard"] is None:
        return True
    try:
        return (folder / shard_name(shard)).stat().st_size == manifest["bytes"]
    except FileNotFoundError:
        return False


def read_manifest(folder: Path, shard: int) -> dict | None:
    """The shard's manifest, or None when there is none that this program can read."""
    try:
        manifest = read_json(folder / manifest_name(shard))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or manifest.get("version") not in READABLE_VERSIONS:
        return None
    kinds = {"plan": str, "samples": list, "failures": list, "bytes": int}
    shaped = all(isinstance(manifest.get(name, kind()), kind) for name, kind in kinds.items())
    return manifest if shaped and all(isinstance(sample, dict) for sample in manifest.get("samples", ())) else None

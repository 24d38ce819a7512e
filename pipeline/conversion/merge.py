"""From finished shards to a dataset: the index, the quarantine list and ``dataset.json``, which comes last."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np

from ..atomic_files import atomic_path, write_atomic
from ..bounded_files import read_json
from ..errors import InputError
from ..shards.index import CODECS, INDEX_NAME, SampleIndex
from ..shards.quarantine import Failure, quarantine_csv
from ..shards.writer import read_manifest
from .output import DATASET_NAME, SHARD_FOLDER, LocalOutput
from .plan import PlanHeader
from .stats import STATS_NAME, write_stats

QUARANTINE_NAME = "quarantine.csv"
DATASET_VERSION = 2
READABLE_VERSIONS = (1, 2)  # version 1 has no layers


def merge(output: LocalOutput, header: PlanHeader) -> dict:
    """Build the dataset's files from the manifests of all its shards; returns the content of ``dataset.json``.

    Raises:
        InputError: a shard is missing, the counts do not add up to the plan, or nothing was converted.
    """
    output.gather()
    out, folder = output.root, output.shards
    manifests = []
    for shard in range(header.shards):
        manifest = read_manifest(folder, shard)
        if manifest is None or manifest["plan"] != header.id:
            raise InputError(f"{output.name}: shard {shard} is not done; run the same convert command again")
        manifests.append(manifest)
    failures = [Failure(**failure) for manifest in manifests for failure in manifest["failures"]]
    failures.sort(key=lambda failure: (failure.path, failure.key))
    written = [manifest for manifest in manifests if manifest["shard"] is not None]
    converted = sum(len(manifest["samples"]) for manifest in written)
    if converted + len(failures) != header.videos:
        raise InputError(
            f"{output.name}: {converted} + {len(failures)} videos are accounted for, {header.videos} were planned"
        )
    write_atomic(out / QUARANTINE_NAME, quarantine_csv(failures))
    if converted == 0:
        output.written(QUARANTINE_NAME)
        first = f"{failures[0].path}: {failures[0].detail}" if failures else "no videos"
        raise InputError(
            f"{output.name}: none of {header.videos} videos could be converted ({first}); see {QUARANTINE_NAME}"
        )
    index = build_index(written, header.classes)
    samples = [sample for manifest in written for sample in manifest["samples"]]
    _write_index(index, out / INDEX_NAME)
    dataset = {
        "format": "unstill dataset",
        "version": DATASET_VERSION,
        "plan": header.id,
        "classes": list(header.classes),
        "settings": header.settings,
        "tools": header.tools,
        "planned": header.videos,
        "converted": converted,
        "quarantined": len(failures),
        "reasons": dict(sorted(Counter(failure.reason for failure in failures).items())),
        "frames": int(index.frames.sum(dtype=np.int64)),
        "notes": dict(sorted(Counter(note for sample in samples for note in sample.get("notes", ())).items())),
        "same_content": same_content(samples),
        "shards": [
            {
                "name": f"{SHARD_FOLDER}/{manifest['shard']}",
                "bytes": manifest["bytes"],
                "sha256": manifest["sha256"],
                "samples": len(manifest["samples"]),
            }
            for manifest in written
        ],
        "index_sha256": hashlib.sha256((out / INDEX_NAME).read_bytes()).hexdigest(),
    }
    write_stats(output, dataset, index, failures)
    text = json.dumps(dataset, indent=1, sort_keys=True).encode() + b"\n"
    write_atomic(out / DATASET_NAME, text)
    for name in (INDEX_NAME, STATS_NAME, QUARANTINE_NAME, DATASET_NAME):
        output.written(name)
    return dataset


def same_content(samples: list[dict]) -> dict:
    """Videos whose source files have the same bytes: number of groups, and the keys of those in several classes."""
    groups: dict[tuple, list[dict]] = {}
    for sample in samples:
        if "source_sha256" in sample:
            # two parts of one file have the same source and other frames
            groups.setdefault((sample["source_sha256"], *sample["fragment_crc"]), []).append(sample)
    same = [group for group in groups.values() if len(group) > 1]
    mixed = [group for group in same if len({sample["label"] for sample in group}) > 1]
    return {"groups": len(same), "in_several_classes": sorted(sorted(s["key"] for s in group) for group in mixed)}


def build_index(manifests: list[dict], classes: tuple[str, ...]) -> SampleIndex:
    """The index over the samples of ``manifests``, in their order."""
    samples = [sample for manifest in manifests for sample in manifest["samples"]]

    def column(name: str, dtype: type) -> np.ndarray:
        return np.array([sample[name] for sample in samples], dtype)

    def joined(name: str) -> np.ndarray:
        return np.array([value for sample in samples for value in sample[name]], np.uint32)

    counts = [len(sample["fragment_end"]) for sample in samples]
    keys = [sample["key"].encode() for sample in samples]
    return SampleIndex(
        shard=np.repeat(np.arange(len(manifests), dtype=np.int32), [len(m["samples"]) for m in manifests]),
        mp4_offset=column("offset", np.int64),
        mp4_bytes=column("bytes", np.uint32),
        init_bytes=column("init_bytes", np.uint32),
        init_crc=column("init_crc", np.uint32),
        frames=column("frames", np.int32),
        fps_milli=column("fps_milli", np.int32),
        label=column("label", np.int32),
        gop=column("gop", np.uint16),
        width=column("width", np.uint16),
        height=column("height", np.uint16),
        codec=np.array([CODECS.index(sample["codec"]) for sample in samples], np.uint8),
        fragment_row=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        fragment_end=joined("fragment_end"),
        fragment_crc=joined("fragment_crc"),
        key_end=np.cumsum([len(key) for key in keys]).astype(np.int64),
        key_text=np.frombuffer(b"".join(keys), np.uint8),
        shard_names=tuple(f"{SHARD_FOLDER}/{manifest['shard']}" for manifest in manifests),
        classes=classes,
        layers=np.array([sample.get("layers", 1) for sample in samples], np.uint8),
    )


def _write_index(index: SampleIndex, path: Path) -> None:
    with atomic_path(path) as partial:
        index.save(partial)


def read_dataset(path: Path) -> dict | None:
    """The content of ``dataset.json`` in folder ``path``, or None when there is none.

    Raises:
        InputError: there is one, but not of this version.
    """
    try:
        dataset = read_json(path / DATASET_NAME)
        if dataset["version"] not in READABLE_VERSIONS:
            raise ValueError(f"version {dataset['version']}")
        for name in ("planned", "converted", "quarantined"):
            if type(dataset.get(name, 0)) is not int:
                raise ValueError(f"{name} is no number")
        return dataset
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path / DATASET_NAME}: not a dataset of this version ({error}); convert again") from error

"""Datasets of shards: index, sample tables, videos, manifests, plans."""

import dataclasses
import functools
import hashlib
import json
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from children import FAULTS, alone
from mutations import mutated, mutated_json

from unstill.pipeline.conversion.merge import read_dataset
from unstill.pipeline.conversion.plan import read_plan
from unstill.pipeline.conversion.verify import verify
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import ClipConfig, ViewConfig
from unstill.pipeline.shards.cache import ShardCache
from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.pipeline.shards.index import INDEX_NAME, SampleIndex
from unstill.pipeline.shards.index_check import check_index, check_manifest, check_shards
from unstill.pipeline.shards.writer import read_manifest

Cases = Iterator[Callable[[], str]]


def clips_of(folder: Path, **options) -> dict[str, tuple[str, str]]:
    """Class and digest of the frames of every clip that is delivered, by key; ``options`` of the loader."""
    torch.set_num_threads(1)
    found = {}
    config = LoaderConfig(max_bad_fraction=1.0, decode_threads=1, core_threads=1, **options)
    clip = ClipConfig(frames=4, stride=2, size=32)
    with ClipLoader(folder, clip=clip, batch_size=4, views=ViewConfig(), device="cpu", config=config) as loader:
        for clips in loader:
            for row, sample in enumerate(clips.sample.tolist()):
                digest = hashlib.sha256(clips.frames[row].numpy().tobytes()).hexdigest()
                found[loader.index.key(sample)] = loader.index.classes[int(clips.label[row])], digest
    return found


def compare(folder: Path, truth: dict, what: Callable[[dict], object], **options) -> str:
    """The outcome of reading a dataset whose right content is known."""
    found = clips_of(folder, **options)
    if any(what({key: value}) != what({key: truth.get(key)}) for key, value in found.items()):
        return "wrong data"
    return "right data" if len(found) == len(truth) else "bad clips"


def index_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """Random bytes of index.safetensors; dataset.json names the right one."""
    truth, data = clips_of_child(folder), (folder / INDEX_NAME).read_bytes()
    (folder / "dataset.json").write_text(json.dumps({"index_sha256": hashlib.sha256(data).hexdigest()}))
    for _ in range(cases):
        (folder / INDEX_NAME).write_bytes(mutated(data, rng))
        yield lambda: compare(folder, truth, dict)


def column_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """One value, or all, of a column of the index."""
    truth, index = clips_of_child(folder), SampleIndex.load(folder)
    columns = [name for name, value in vars(index).items() if isinstance(value, np.ndarray)]
    copies = {name: np.array(getattr(index, name)) for name in columns}
    index = dataclasses.replace(index, **copies)
    for number in range(cases):
        name = columns[number % len(columns)]
        column = copies[name].copy()
        row, limits = rng.randrange(len(column)), np.iinfo(column.dtype)
        old = int(column[row])
        new = rng.choice(
            [old + 1, old - 1, old + rng.randrange(1, 400), old * 2, old // 2, 0, limits.max, limits.min, 65520]
        )
        column[slice(None) if rng.random() < 0.3 else row] = max(int(limits.min), min(int(limits.max), new))
        dataclasses.replace(index, **{name: column}).save(folder / INDEX_NAME)
        # what a sample is called, its class, and which of its frames are where, is the index's to say; its size is not
        yield (
            lambda name=name: (
                found
                if (found := compare(folder, truth, dict)) != "wrong data" or name in ("width", "height")
                else "other data"
            )
        )


def mp4_cases(folder: Path, rng: random.Random, cases: int, **options) -> Cases:
    """Bytes of every video, biased to its boxes; all checksums recomputed. ``options`` of the loader."""
    index = SampleIndex.load(folder)
    truth = clips_of_child(folder, **options)
    copies = {name: np.array(v) for name, v in vars(index).items() if isinstance(v, np.ndarray)}
    index = dataclasses.replace(index, **copies)  # no longer the mapped file, which is written below
    shard = folder / index.shard_names[0]
    data = shard.read_bytes()
    rows = np.flatnonzero(copies["shard"] == 0)
    for _ in range(cases):
        changed = bytearray(data)
        columns = {name: copies[name].copy() for name in ("init_crc", "fragment_crc")}
        for row in rows.tolist():
            begin, size, init = (int(copies[name][row]) for name in ("mp4_offset", "mp4_bytes", "init_bytes"))
            first, last = copies["fragment_row"][row : row + 2].tolist()
            ends = [init, *copies["fragment_end"][first:last].tolist()]
            place = rng.choice([(0, init), *((end, min(end + 120, size)) for end in ends[:-1]), (0, size)])
            part = mutated(bytes(changed[begin + place[0] : begin + place[1]]), rng)
            part = part.ljust(place[1] - place[0], b"\0")[: place[1] - place[0]]
            changed[begin + place[0] : begin + place[1]] = part
            columns["init_crc"][row] = zlib.crc32(changed[begin : begin + init])
            for k in range(last - first):
                columns["fragment_crc"][first + k] = zlib.crc32(changed[begin + ends[k] : begin + ends[k + 1]])
        shard.write_bytes(changed)
        dataclasses.replace(index, **columns).save(folder / INDEX_NAME)
        # other pixels are what a stranger's video may hold: only that it ends well counts
        yield lambda: compare(folder, truth, lambda one: 0, **options)


def clips_of_child(folder: Path, **options) -> dict[str, tuple[str, str]]:
    """``clips_of`` in a child: DALI must not have run in the process that forks."""
    outcome, text = alone(lambda: json.dumps(clips_of(folder, **options)))
    if outcome in FAULTS or outcome == "one line":
        raise RuntimeError(f"{outcome}: {text}")
    return {key: tuple(value) for key, value in json.loads(outcome).items()}


def manifest_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """dataset.json as local and as remote manifest, the manifest of a shard, and the plan of a conversion."""
    whole = {name: (folder / name).read_bytes() for name in ("dataset.json", "shards/00000.json", "plan.jsonl")}
    remote, cache = f"file://{folder}", folder.parent / "cache"

    def local() -> str:
        check_manifest(folder)
        DatasetInfo.read(folder)
        read_dataset(folder)
        return f"{len(verify(folder, decode=False, workers=1))} faults"[:8]

    def of_a_cache() -> str:
        shards = ShardCache(remote, cache, 10**9)
        index = SampleIndex.load(shards.root)
        check_index(index, remote)
        check_shards(index, remote, shards.sizes())
        return "opened"

    def of_a_shard() -> str:
        read_manifest(folder / "shards", 0)
        return f"{len(verify(folder, decode=False, workers=1))} faults"[:8]

    reads = {"dataset.json": (local, of_a_cache), "shards/00000.json": (of_a_shard,)}
    reads["plan.jsonl"] = (lambda: f"{len(read_plan(folder / 'plan.jsonl').videos)} videos",)
    for _ in range(cases):
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        name = rng.choice(list(whole))
        change = _mutated_lines if name == "plan.jsonl" else mutated_json
        (folder / name).write_bytes(change(whole[name], rng))
        yield rng.choice(reads[name])


def _mutated_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines()
    row = rng.randrange(len(lines))
    lines[row] = mutated_json(lines[row], rng)
    return b"\n".join(lines) + b"\n"


def tar_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """A shard of a converted dataset, bytes anywhere or in headers; ``verify`` must find every change of content."""
    shard = folder / "shards" / "00000.tar"
    whole = shard.read_bytes()
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    for _ in range(cases):
        at = rng.choice(headers) if rng.random() < 0.7 else rng.randrange(len(whole) - 512)
        changed = whole[:at] + mutated(whole[at : at + 512], rng) + whole[at + 512 :]
        shard.write_bytes(changed)

        def read(same: bool = changed == whole) -> str:
            faults = verify(folder, decode=False, workers=1)
            return "named" if faults else "right data" if same else "wrong data"

        yield read


def prepare_videos(folder: Path, codecs: tuple[str, ...] = ("vp9",), videos: int = 16) -> Path:
    """A dataset of small videos, one shard."""
    make_video, write_dataset = _makers()
    made = [make_video(frames=14, seed=n, label=n % 4, codec=codecs[n % len(codecs)]) for n in range(videos)]
    return write_dataset(folder / "data", made, videos)


def prepare_converted(folder: Path) -> Path:
    """What ``unstill convert`` makes of three videos."""
    from unstill.pipeline.conversion.convert import ConvertConfig, convert

    make_video, _ = _makers()
    for n in range(3):
        path = folder / "source" / "ab"[n % 2] / f"{n}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_video(frames=5, height=48, width=64, seed=n).mp4)
    out = folder / "converted"
    convert(ConvertConfig(source=folder / "source", out=out, codec="vp9", short_side=32, gop=4, workers=1))
    return out


def _makers() -> tuple[Callable, Callable]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline"))
    from conftest import make_video, write_dataset

    return make_video, write_dataset


isolated_cases = functools.partial(mp4_cases, isolate=True)
cores_cases = functools.partial(mp4_cases, decoder="cores")

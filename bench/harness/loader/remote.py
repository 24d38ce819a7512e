"""Clips from a remote dataset beside the same clips from the disk, with the latency of a distant server."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ....pipeline.loading.gop_reader import RangeReader
from ....pipeline.loading.loader import ClipLoader
from ....pipeline.loading.loader_config import LoaderConfig
from ....pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler, frame_numbers
from ....pipeline.shards.cache import ShardCache
from ....pipeline.shards.index import INDEX_NAME, SampleIndex
from ..record import ResultFile, quantiles
from .rows import fetched_row, latency_row, remote_row, remote_work_row
from .s3_server import s3_server

_LATENCY, _WARM, _BATCH = 0.03, 4, 16  # seconds; batches before the clock starts; clips


def clips_from_afar(root: Path, folder: Path, clip: ClipConfig, rounds: int, clips: int, results: ResultFile) -> None:
    """Clips per second of wall clock from an S3 server 30 ms away, over the same from local files, in turns.

    Every clip comes from a video that was not touched before: nothing is in the cache. The loader has the same core for
    both; a server is no part of a user's machine, so it has another.

    Args:
        root: a dataset of one shard.
        folder: for copies.
        clip: shape of a clip.
        rounds, clips: how often, and how many at a time.
    """
    try:
        import moto  # noqa: F401  # pyright: ignore[reportMissingImports]
        import s3fs  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        results.note(f"remote reading left out: {error}")
        return
    count = len(SampleIndex.load(root))
    copies = many_copies(root, folder / "copies", -(-(clips + _BATCH * (_WARM + 8)) // count))
    local, fetched = [], 0.0
    rates: dict[float, list[tuple[float, float]]] = {0.0: [], _LATENCY: []}
    own, *others = sorted(os.sched_getaffinity(0))
    for latency, found in rates.items():
        server = s3_server(latency, others[0] if others else None)
        with server as address, _credentials(address), _on_core(own):
            s3fs.S3FileSystem.clear_instance_cache()
            files = s3fs.S3FileSystem()
            files.mkdir("bench")
            files.put(f"{copies}/", "bench/data/", recursive=True)
            for turn in range(rounds):
                if latency:
                    local.append(_rate(str(copies), folder, clip, clips, turn))
                found.append(_rate("s3://bench/data", folder / f"cache_{latency}_{turn}", clip, clips, turn))
            fetched = _fetched_over_needed("s3://bench/data", folder / f"cold_{latency}", clip, min(clips, 64))
    results.note(
        "remote: an S3 server on this machine that answers 30 ms late, in a process of its own; "
        + ("the loader is kept to one core, for local files as well, the server to another; " if others else "")
        + f"{clip.frames}x{clip.stride} clips at {clip.size}, one decoding thread, {LoaderConfig.remote_requests} "
        "requests at a time, every clip from a video not read before"
    )
    (far, work), (near, _), (here, own_work) = (np.array(found).T for found in (rates[_LATENCY], rates[0.0], local))
    results.add(
        remote_row(quantiles((far / here).tolist())),
        remote_work_row(quantiles((own_work / work).tolist())),
        latency_row(quantiles((far / near).tolist())),
        fetched_row(fetched),
    )


@contextmanager
def _on_core(core: int) -> Iterator[None]:
    """This thread, and those that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _rate(dataset: str, cache: Path, clip: ClipConfig, clips: int, seed: int) -> tuple[float, float]:
    """Clips per second of wall clock, and CPU-seconds of this process a clip."""
    config = LoaderConfig(decoder="cores", core_threads=1, cache=cache)
    with ClipLoader(
        dataset, clip=clip, augment=AugmentConfig(), batch_size=_BATCH, device="cpu", seed=seed, config=config
    ) as loader:
        for _ in range(_WARM):
            next(loader)
        begin, spent, count = time.perf_counter(), time.process_time(), clips // _BATCH * _BATCH
        for _ in range(clips // _BATCH):
            next(loader)
        return count / (time.perf_counter() - begin), (time.process_time() - spent) / count


def _fetched_over_needed(address: str, folder: Path, clip: ClipConfig, clips: int) -> float:
    """Bytes that come over the network for a clip, over those of its header and GOPs."""
    cache = ShardCache(address, folder, 10**12)
    index, ranges = SampleIndex.load(cache.root), cache.ranges()
    reader, frames = RangeReader(index, ranges), np.asarray(index.frames, np.int64)
    r = TrainSampler(index, clip, AugmentConfig(), seed=0).draw(np.arange(clips))
    numbers = frame_numbers(clip, r.start_frame, r.stride, frames[r.sample])
    needed = sum(reader.clip(*pair).bytes_read for pair in zip(r.sample.tolist(), numbers, strict=True))
    reader.close()
    return ranges.bytes_fetched / needed


def many_copies(root: Path, out: Path, copies: int) -> Path:
    """A dataset of the same shards under many names: as large as wanted, made in no time."""
    index = SampleIndex.load(root)
    n, shards, fragments = len(index), len(index.shard_names), len(index.fragment_end)
    (out / "shards").mkdir(parents=True)
    names = [f"shards/{copy * shards + k:05d}.tar" for copy in range(copies) for k in range(shards)]
    for number, name in enumerate(names):
        shutil.copy(root / index.shard_names[number % shards], out / name)
    keys = [f"{key}_{copy}".encode() for copy in range(copies) for key in index.keys()]
    turn = np.repeat(np.arange(copies), n)
    per_sample = "mp4_offset mp4_bytes init_bytes init_crc frames fps_milli label gop width height codec layers".split()
    tiled = {name: np.tile(np.asarray(getattr(index, name)), copies) for name in per_sample}
    tiled |= {name: np.tile(np.asarray(getattr(index, name)), copies) for name in ("fragment_end", "fragment_crc")}
    rows = np.asarray(index.fragment_row)[:-1]
    tiled["fragment_row"] = np.append(np.tile(rows, copies) + turn * fragments, fragments * copies).astype(np.int64)
    tiled["shard"] = (np.tile(np.asarray(index.shard), copies) + turn * shards).astype(np.int32)
    tiled["key_end"] = np.cumsum([len(key) for key in keys], dtype=np.int64)
    tiled["key_text"] = np.frombuffer(b"".join(keys), np.uint8)
    replace(index, **tiled, shard_names=tuple(names)).save(out / INDEX_NAME)
    sha = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()  # noqa: E731
    found = [{"name": name, "bytes": (out / name).stat().st_size, "sha256": sha(out / name)} for name in names]
    (out / "dataset.json").write_text(json.dumps({"shards": found, "index_sha256": sha(out / INDEX_NAME)}))
    return out


@contextmanager
def _credentials(address: str) -> Iterator[None]:
    """What the client of S3 takes from the environment."""
    before = dict(os.environ)
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = address
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before

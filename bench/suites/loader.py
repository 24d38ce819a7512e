"""`unstill bench loader`: how fast clips arrive, beside other loaders on the same videos and the hardware's limit.

On a CPU the unit is clips per CPU-second (process time, decoding on one thread), which does not depend on what else
the machine does; paths take turns in rounds, and a ratio is the median over rounds. On a GPU it is clips per second of
wall clock.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...pipeline.loading.bad_clips import BadClips
from ...pipeline.loading.clip_stream import ClipStream
from ...pipeline.loading.clips import LoaderConfig
from ...pipeline.loading.gop_reader import GopReader, shards_in
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.sampler import (
    AugmentConfig,
    ClipConfig,
    ClipRequests,
    TrainSampler,
    frame_numbers,
    step_positions,
)
from ...pipeline.progress import Progress
from ...pipeline.shards.index import SampleIndex
from ..harness.loader_peers import (
    DECODERS,
    PeerDataset,
    WholeFileReader,
    dali_webdataset_batches,
    peer_batches,
    unavailable,
    webdataset_batches,
)
from ..harness.nvdec import DecoderUse, missing_library, sequential_rate
from ..harness.record import quantiles, record, show
from ..harness.synthetic_videos import synthetic_dataset, synthetic_video

# what must hold, from the project's plan
SLICED_BAR, FLAT_BAR, READ_BAR = 1.8, 1.3, 5000.0


@dataclass(frozen=True, kw_only=True)
class LoaderBench:
    """Measure the clip loader beside its peers."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    videos: Path | None = None
    """Where to keep the synthetic datasets; a temporary folder by default."""
    rounds: int = 5
    """Times every path is measured, in turns."""
    clips: int = 24
    """Clips per path and round on the CPU."""
    seconds: float = 5.0
    """Duration of each measurement on the GPU."""
    device: str | None = None
    """cpu or cuda; by default what there is."""


def run(config: LoaderBench | None = None) -> Path:
    """Measure, print the table, write the result file and return its path."""
    config = config or LoaderBench()
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        videos = config.videos or Path(temporary)
        if device == "cuda" and (reason := missing_library()):
            notes.append(f"GPU part left out: {reason}; measured on the CPU instead")
            device = "cpu"
        rows = _gpu_rows(config, videos, notes) if device == "cuda" else _cpu_rows(config, videos, notes)
    show(f"clip loader, {device}", rows, notes=notes)
    forced = device == "cpu" and torch.cuda.is_available()  # the file's name ends in the machine's device
    return record("loader_on_cpu" if forced else "loader", rows, out=config.out, notes=notes)


# ---- CPU ----


def _cpu_rows(config: LoaderBench, videos: Path, notes: list[str]) -> list[dict]:
    torch.set_num_threads(1)
    root = synthetic_dataset(videos / "vp9", videos=8, codec="vp9")
    clip, index = ClipConfig(frames=16, stride=2, size=112), SampleIndex.load(root)
    sampler = TrainSampler(index, clip, AugmentConfig(), seed=0)
    notes.append("VP9 336x256, 250 frames, GOP 12; clips 16x2, random crop to 112x112; the same clips on every path")

    paths: dict[str, Callable[[np.ndarray], Iterable]] = {
        "unstill (GOPs only)": lambda at: _through_dali(index, root, GopReader, sampler, at),
        "DALI, whole file": lambda at: _through_dali(index, root, WholeFileReader, sampler, at),
    }
    for name, (package, decode) in DECODERS.items():
        if reason := unavailable(package):
            notes.append(f"{name} skipped: {reason}")
        else:
            paths[name] = lambda at, d=decode: peer_batches(PeerDataset(root, sampler, at, d), 8, workers=0)
    decode = DECODERS["PyAV + DataLoader"][1]
    paths["webdataset + PyAV"] = lambda at: webdataset_batches(PeerDataset(root, sampler, at, decode), 8)

    rates = _alternate(paths, config.rounds, config.clips)
    rows = [_row(name, rate, "clips per CPU-second") for name, rate in rates.items()]
    ratio = np.array(rates["unstill (GOPs only)"]) / np.array(rates["DALI, whole file"])
    rows.append(_row("GOPs only / whole file", ratio, "times", SLICED_BAR, np.median(ratio) >= SLICED_BAR))
    rows += _flat_rows(config, index, root, clip)

    reading = [_reading_rate(index, root, sampler, 2000) for _ in range(config.rounds + 1)][1:]  # the first warms up
    met = np.median(reading) >= READ_BAR
    rows.append(_row("sampler + reading alone", reading, "clips per CPU-second", READ_BAR, met))
    return rows


def _row(path: str, values, unit: str, bar: float | None = None, met: bool | None = None) -> dict:
    row = {"path": path, **quantiles(values), "unit": unit}
    return row if bar is None else {**row, "bar": bar, "met": "yes" if met else "NO"}


def _alternate(paths: dict[str, Callable], rounds: int, clips: int) -> dict[str, list[float]]:
    """Clips per CPU-second of every path in every round; round r gives all paths the same clips."""
    rates: dict[str, list[float]] = {name: [] for name in paths}
    with Progress("loader paths", rounds * len(paths), "measurements") as progress:
        for turn in range(-1, rounds):
            at = np.arange(max(turn, 0) * clips, (max(turn, 0) + 1) * clips)
            for name, path in paths.items():
                if turn < 0:
                    _drain(path(at[:2]))  # imports, first pipeline, page cache
                    continue
                gc.collect()
                begin = time.process_time()
                delivered = _drain(path(at))
                rates[name].append(delivered / (time.process_time() - begin))
                assert delivered == clips, f"{name} delivered {delivered} of {clips} clips"
                progress.advance(note=name)
    return rates


def _drain(batches: Iterable) -> int:
    return sum(len(batch) for batch in batches)


def _through_dali(
    index: SampleIndex,
    root: Path,
    reader_type: type[GopReader],
    sampler,
    positions: np.ndarray,
    batch: int = 8,
    device: str = "cpu",
    threads: int = 1,
) -> Iterator[torch.Tensor]:
    """uint8 batches from the loader's own chain, with either reader."""
    reader = reader_type(index, shards_in(root, index))
    stream = ClipStream(
        index,
        reader,
        sampler,
        sampler.clip,
        BadClips(index, 0.0),
        device=torch.device(device),
        batch_size=batch,
        decode_threads=threads,
        pipelines=1,
        depth=2,
        read_threads=1,
        read_ahead=2,
        known_good=None,
    )
    try:
        for decoded in stream.batches(positions[n : n + batch] for n in range(0, len(positions), batch)):
            yield decoded.clips
    finally:
        stream.close()
        reader.close()


class _StartingNear:
    """A sampler whose clips start within one GOP after a given frame, whole picture."""

    def __init__(self, index: SampleIndex, clip: ClipConfig, first: int):
        self.clip, self._first, self._samples = clip, first, len(index)
        self._gop, self._side = int(index.gop[0]), int(index.height[0])

    def draw(self, positions: np.ndarray) -> ClipRequests:
        n, zero = len(positions), np.zeros(len(positions), np.int64)
        return ClipRequests(
            position=positions,
            sample=positions % self._samples,
            start_frame=self._first + positions % self._gop,
            stride=zero + self.clip.stride,
            top=zero,
            left=zero,
            height=zero + self._side,
            width=zero + self._side,
            flip=zero > 0,
            static_index=zero,
            draws=np.zeros((n, 8), np.float32),
        )


def _starts(index: SampleIndex, clip: ClipConfig) -> list[int]:
    """Five first frames of GOPs, from the start of the videos to the last one a clip can start in."""
    gop = int(index.gop[0])
    last = (int(index.frames[0]) - (clip.frames - 1) * clip.stride - gop) // gop * gop
    return [round(last * part / 4 / gop) * gop for part in range(5)]


def _flat_rows(config: LoaderBench, index: SampleIndex, root: Path, clip: ClipConfig) -> list[dict]:
    """Cost of a clip by where in the video it starts."""
    gop, starts = int(index.gop[0]), _starts(index, clip)
    clips = -(-config.clips // gop) * gop  # every phase of the GOP equally often
    rows = []
    for name, reader in (("unstill (GOPs only)", GopReader), ("DALI, whole file", WholeFileReader)):
        paths = {
            f"{name}, start {start}-{start + gop - 1}": (
                lambda at, s=start, r=reader: _through_dali(index, root, r, _StartingNear(index, clip, s), at)
            )
            for start in starts
        }
        rates = _alternate(paths, max(2, config.rounds - 2), clips)
        cost = {path: [1000 / rate for rate in found] for path, found in rates.items()}
        rows += [_row(path, values, "CPU-ms per clip") for path, values in cost.items()]
        middle = [np.median(values) for values in cost.values()]
        spread = max(middle) / min(middle)
        bar = (FLAT_BAR, spread <= FLAT_BAR) if reader is GopReader else (None, None)
        rows.append(_row(f"{name}, slowest / fastest start", [spread], "times", *bar))
    return rows


def _reading_rate(index: SampleIndex, root: Path, sampler: TrainSampler, clips: int) -> float:
    """Clips per CPU-second of choosing clips and fetching and checking their bytes, nothing decoded."""
    reader = GopReader(index, shards_in(root, index))
    frames = np.asarray(index.frames, np.int64)
    begin = time.process_time()
    for step in range(clips // 32):
        r = sampler.draw(step_positions(step, 32))
        numbers = frame_numbers(sampler.clip, r.start_frame, r.stride, frames[r.sample])
        for sample, wanted in zip(r.sample.tolist(), numbers, strict=True):
            reader.clip(sample, wanted)
    rate = clips // 32 * 32 / (time.process_time() - begin)
    reader.close()
    return rate


# ---- GPU ----


def _gpu_rows(config: LoaderBench, videos: Path, notes: list[str]) -> list[dict]:
    root = synthetic_dataset(videos / "h264", videos=128, codec="h264")
    notes.append("H.264 336x256, 250 frames, GOP 12; clips 224x224, batch 64; clips/s of wall clock, no training")
    rows = []

    limit, best = 0.0, (16, 1)
    index = SampleIndex.load(root)
    whole_files = WholeFileReader(index, lambda shard: root / index.shard_names[shard])
    spans = whole_files.spans(np.arange(len(index)), None, None).tolist()
    files = [whole_files.read(sample, *span) for sample, span in enumerate(spans)]
    for threads in (8, 16, 32):
        rate, use = sequential_rate(files, threads, config.seconds)
        rows.append(
            {"path": f"limit: sequential decode, {threads} sessions", "frames_per_s": rate, "nvdec_percent": use}
        )
        limit = max(limit, rate)

    # coded 352x256, shown 340x256: does DALI still reuse decoder sessions?
    rate, use = sequential_rate(_raw_videos(24, width=340), 16, config.seconds)
    rows.append({"path": "sequential decode, 340x256, 16 sessions", "frames_per_s": rate, "nvdec_percent": use})
    rate, use = sequential_rate(_raw_videos(24, width=336), 16, config.seconds)
    rows.append({"path": "sequential decode, 336x256, 16 sessions", "frames_per_s": rate, "nvdec_percent": use})

    rates = {}
    clip = ClipConfig(frames=16, stride=2)
    for pipelines in (1, 2, 4):
        for threads in (8, 16, 24, 32):
            loader = LoaderConfig(decode_threads=threads, pipelines=pipelines)
            row = _loader_row(config, root, clip, loader)
            rates[threads, pipelines] = row["clips_per_s"]
            rows.append({"path": f"unstill 16x2, {threads} threads x {pipelines} pipelines", **row})
    best = max(rates, key=rates.get)
    notes.append(f"best: {best[0]} threads x {best[1]} pipelines")

    rows += _gpu_start_rows(config, index, root, ClipConfig(frames=16, stride=2), best[0])

    for frames in (16, 32):
        clip = ClipConfig(frames=frames, stride=2)
        row = _loader_row(config, root, clip, LoaderConfig(decode_threads=best[0], pipelines=best[1]))
        rows.append({"path": f"unstill {frames}x2", **row, "of_limit": row["decoded_frames_per_s"] / limit})
        whole = dali_webdataset_batches(root, frames, 2, clip.size, 64, best[0], "cuda")
        rows.append({"path": f"DALI readers.webdataset, whole file {frames}x2", **_wall_rate(whole, config.seconds)})
        sampler = TrainSampler(index, clip, AugmentConfig(), seed=0)
        for name, (package, decode) in DECODERS.items():
            if reason := unavailable(package):
                notes.append(f"{name} skipped: {reason}")
                continue
            peer = peer_batches(PeerDataset(root, sampler, np.arange(1_000_000), decode), 64, workers=16)
            to_gpu = (batch.cuda(non_blocking=True) for batch in peer)
            rows.append({"path": f"{name}, 16 workers, {frames}x2", **_wall_rate(to_gpu, config.seconds)})
            del to_gpu, peer
            gc.collect()
    return rows


def _raw_videos(count: int, width: int) -> list[np.ndarray]:
    """H.264 files as they come from the encoder, 120 frames of width x 256."""
    with tempfile.TemporaryDirectory() as folder:
        for n in range(count):
            synthetic_video(Path(folder) / f"{n}.mp4", 120, 256, width, seed=n)
        return [np.fromfile(Path(folder) / f"{n}.mp4", np.uint8) for n in range(count)]


def _gpu_start_rows(config: LoaderBench, index: SampleIndex, root: Path, clip: ClipConfig, threads: int) -> list[dict]:
    """Clips per second by where in the video they start, GOPs only and whole files."""
    rows, starts = [], _starts(index, clip)
    for name, reader in (("unstill (GOPs only)", GopReader), ("DALI, whole file", WholeFileReader)):
        rates = []
        for start in starts:
            sampler = _StartingNear(index, clip, start)
            batches = _through_dali(index, root, reader, sampler, np.arange(1_000_000), 64, "cuda", threads)
            row = {"path": f"{name}, start {start}", **_wall_rate(batches, config.seconds / 2)}
            batches.close()
            rates.append(row["clips_per_s"])
            rows.append(row)
        spread = max(rates) / min(rates)
        checked = {"bar": FLAT_BAR, "met": "yes" if spread <= FLAT_BAR else "NO"} if reader is GopReader else {}
        rows.append({"path": f"{name}, slowest / fastest start", "times": spread, **checked})
    return rows


def _loader_row(config: LoaderBench, root: Path, clip: ClipConfig, loader_config: LoaderConfig) -> dict:
    with ClipLoader(
        root, clip=clip, augment=AugmentConfig(), batch_size=64, device="cuda", config=loader_config
    ) as loader:
        row = _wall_rate(loader, config.seconds)
        stats = loader.stats
        decoded = row["clips_per_s"] * clip.frames * stats.decoded_per_delivered
        return row | {
            "decoded_frames_per_s": decoded,
            "decoded_per_delivered": stats.decoded_per_delivered,
            "bytes_per_clip": stats.bytes_per_clip,
        }


def _wall_rate(batches: Iterable, seconds: float) -> dict:
    batches = iter(batches)
    for _ in range(4):
        next(batches)
    torch.cuda.synchronize()
    clips = 0
    with DecoderUse() as use:
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            clips += len(next(batches))
        torch.cuda.synchronize()
    return {"clips_per_s": clips / elapsed, "nvdec_percent": use.percent}

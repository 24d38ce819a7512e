"""Clips on a GPU: our loader over threads and pipelines, beside other loaders and the limit of the decoders."""

import gc
import itertools
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ....pipeline.loading.gop_reader import GopReader, shards_in
from ....pipeline.loading.loader import ClipLoader
from ....pipeline.loading.loader_config import LoaderConfig
from ....pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler
from ....pipeline.shards.index import SampleIndex
from ..nvdec import DecoderUse, sequential_rate
from ..planned_seconds import START_SECONDS
from ..record import ResultFile
from ..row import Row
from ..synthetic_videos import synthetic_dataset, synthetic_video
from .options import LoaderBench
from .peers import DECODERS, PeerDataset, WholeFileReader, dali_webdataset_batches, peer_batches, unavailable
from .rows import OURS, WHOLE, by_start_row, role_of
from .turns import StartingNear, starts, through_dali

NAMES = {"h264": "H.264", "hevc": "HEVC"}


def on_gpu(config: LoaderBench, videos: Path, results: ResultFile) -> None:
    """Clips per second of wall clock on a GPU."""
    results.note("336x256, 250 frames, GOP 12; clips 224x224, batch 64; clips/s of wall clock, no training")
    for codec in config.codecs:
        root = synthetic_dataset(videos / f"{codec}_{config.count}", videos=config.count, codec=codec)
        index = SampleIndex.load(root)
        limit = _decoders(config, index, root, codec, results)
        rates, clip = {}, ClipConfig(frames=16, stride=2)
        for pipelines, threads in itertools.product(config.pipelines, config.threads):
            path = f"unstill {NAMES[codec]} 16x2, {threads} threads x {pipelines} pipelines"
            found = _loader_rate(config, root, clip, LoaderConfig(decode_threads=threads, pipelines=pipelines))
            results.add(_wall_row(path, found, "threads"))
            rates[threads, pipelines] = found["clips_per_s"]
        best = max(rates, key=lambda setting: rates[setting])
        results.note(f"best, {NAMES[codec]}: {best[0]} threads x {best[1]} pipelines")
        for frames in (16, 32):
            _our_path(config, root, codec, ClipConfig(frames=frames, stride=2), best, limit, results)
        _on_cores(config, root, codec, clip, results)
        setting = LoaderConfig(decoder="both", decode_threads=best[0], pipelines=best[1])
        _our_decoder(config, root, codec, clip, setting, "NVDEC and cores", results)
        if config.peers and codec == config.codecs[0]:
            _gpu_cost_by_start(config, index, root, clip, best[0], results)
            for frames in (16, 32):
                _peer_paths(config, index, root, codec, ClipConfig(frames=frames, stride=2), best[0], results)


def cores_to_gpu(config: LoaderBench, videos: Path, results: ResultFile) -> None:
    """Clips per second of wall clock that the processor's cores decode for a GPU, where NVDEC cannot be used."""
    for codec in config.codecs:
        root = synthetic_dataset(videos / f"{codec}_{config.count}", videos=config.count, codec=codec)
        _on_cores(config, root, codec, ClipConfig(frames=16, stride=2), results)


def planned(config: LoaderBench) -> float:
    """Seconds that a GPU machine should need at most."""
    each = config.seconds + 1.5  # opening and warming up
    encoding = {"h264": 0.1, "hevc": 0.6}  # seconds a video, on 16 cores
    measured = len(config.threads) * len(config.pipelines) + len(_SESSIONS) + 2 + 2 + 2
    seconds = sum(20 * encoding[codec] + config.count * encoding[codec] + measured * each for codec in config.codecs)
    if config.peers:
        seconds += 10 * (config.seconds / 2 + 1.5) + 2 * 4 * (config.seconds + 10)  # 16 processes start
    return START_SECONDS + seconds


_SESSIONS = (7, 14, 28)


def _decoders(config: LoaderBench, index: SampleIndex, root: Path, codec: str, results: ResultFile) -> float:
    """Frames/s that the decoders deliver of whole files at best."""
    whole_files, every = WholeFileReader(index, shards_in(root, index)), np.arange(len(index))
    spans = whole_files.spans(every, every, every).tolist()  # of whole files, whatever the frames
    files = [whole_files.read(sample, *span) for sample, span in enumerate(spans)]
    whole_files.close()
    limit = 0.0
    for threads in _SESSIONS:
        rate, use = sequential_rate(files, threads, config.seconds)
        results.add(_decoder_row(f"sequential decode, {NAMES[codec]}, {threads} sessions", rate, use))
        limit = max(limit, rate)
    for width in (340, 336) if codec == "h264" else ():  # 340 is coded as 352: does DALI still reuse sessions?
        rate, use = sequential_rate(_raw_videos(24, width=width), 14, config.seconds)
        results.add(_decoder_row(f"sequential decode, {width}x256, 14 sessions", rate, use))
    return limit


def _decoder_row(title: str, rate: float, use: float | None) -> Row:
    facts, unit = {"measure": "decoders", "nvdec_percent": use}, "frames/s"
    return Row(title=title, value=rate, unit=unit, better="higher", figure="decoders", role="limit", facts=facts)


def _wall_row(path: str, found: dict, figure: str, **more) -> Row:
    """Clips/s of wall clock."""
    rest = {name: value for name, value in found.items() if name != "clips_per_s"}
    said = {"title": path, "role": role_of(path), "facts": {"path": path, **rest}} | more
    return Row(value=found["clips_per_s"], unit="clips/s", better="higher", figure=figure, **said)


def _our_path(
    config: LoaderBench,
    root: Path,
    codec: str,
    clip: ClipConfig,
    best: tuple[int, int],
    limit: float,
    results: ResultFile,
) -> None:
    """Our loader at its best setting, against the limit of the decoders."""
    shape, (threads, pipelines) = f"{NAMES[codec]} {clip.frames}x{clip.stride}", best
    found = _loader_rate(config, root, clip, LoaderConfig(decode_threads=threads, pipelines=pipelines))
    at = {"group": f"clips of {shape}"}
    found["of_limit"] = found["decoded_frames_per_s"] / limit
    results.add(_wall_row(f"unstill, {shape}", found, "gpu rate", label="unstill", **at))
    most = {"clips_per_s": found["clips_per_s"] / found["of_limit"]}
    results.add(_wall_row(f"sequential decoding, {shape}", most, "gpu rate", **at, role="limit"))


def _on_cores(config: LoaderBench, root: Path, codec: str, clip: ClipConfig, results: ResultFile) -> None:
    cores = len(os.sched_getaffinity(0))
    _our_decoder(config, root, codec, clip, LoaderConfig(decoder="cores"), f"{cores} cores", results)


def _our_decoder(
    config: LoaderBench,
    root: Path,
    codec: str,
    clip: ClipConfig,
    setting: LoaderConfig,
    name: str,
    results: ResultFile,
) -> None:
    """Our loader with another decoder than NVDEC alone."""
    shape, label = f"{NAMES[codec]} {clip.frames}x{clip.stride}", f"unstill, {name}"
    at = {"group": f"clips of {shape}", "label": label}
    results.add(_wall_row(f"{label}, {shape}", _loader_rate(config, root, clip, setting), "gpu rate", **at))


def _peer_paths(
    config: LoaderBench,
    index: SampleIndex,
    root: Path,
    codec: str,
    clip: ClipConfig,
    threads: int,
    results: ResultFile,
) -> None:
    """The other loaders, on the same videos."""
    shape = f"{NAMES[codec]} {clip.frames}x{clip.stride}"
    at = {"group": f"clips of {shape}"}
    whole = dali_webdataset_batches(root, clip.frames, clip.stride, clip.size, 64, threads, "cuda")
    name = "DALI readers.webdataset, whole file"
    results.add(_wall_row(f"{name}, {shape}", _wall_rate(whole, config.seconds), "gpu rate", label=name, **at))
    sampler = TrainSampler(index, clip, AugmentConfig(), seed=0)
    for name, decode in DECODERS.items():
        if reason := unavailable(decode):
            results.note(f"{name} skipped: {reason}")
            continue
        peer = peer_batches(PeerDataset(root, sampler, np.arange(1_000_000), decode), 64, workers=16)
        to_gpu = (batch.cuda(non_blocking=True) for batch in peer)
        label = f"{name}, 16 workers"
        results.add(_wall_row(f"{label}, {shape}", _wall_rate(to_gpu, config.seconds), "gpu rate", label=label, **at))
        del to_gpu, peer
        gc.collect()


def _raw_videos(count: int, width: int) -> list[np.ndarray]:
    """H.264 files as they come from the encoder, 120 frames of width x 256."""
    with tempfile.TemporaryDirectory() as folder:
        for n in range(count):
            synthetic_video(Path(folder) / f"{n}.mp4", 120, 256, width, seed=n)
        return [np.fromfile(Path(folder) / f"{n}.mp4", np.uint8) for n in range(count)]


def _gpu_cost_by_start(
    config: LoaderBench, index: SampleIndex, root: Path, clip: ClipConfig, threads: int, results: ResultFile
) -> None:
    """Clips per second by where in the video they start, GOPs only and whole files."""
    places = starts(index, clip)
    for name, reader in ((OURS, GopReader), (WHOLE, WholeFileReader)):
        rates = []
        for start in places:
            sampler = StartingNear(index, clip, start)
            batches = through_dali(index, root, reader, sampler, np.arange(1_000_000), 64, "cuda", threads)
            found = _wall_rate(batches, config.seconds / 2)
            batches.close()
            rates.append(found["clips_per_s"])
            label = f"from frame {start}"
            results.add(_wall_row(f"{name}, start {start}", found, "gpu start", label=label, group=name))
        results.add(by_start_row(name, max(rates) / min(rates)))


def _loader_rate(config: LoaderBench, root: Path, clip: ClipConfig, loader_config: LoaderConfig) -> dict:
    with ClipLoader(
        root, clip=clip, augment=AugmentConfig(), batch_size=64, device="cuda", config=loader_config
    ) as loader:
        found = _wall_rate(loader, config.seconds)
        stats = loader.stats
        return found | {
            "decoded_frames_per_s": found["clips_per_s"] * clip.frames * stats.decoded_per_delivered,
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

"""`unstill bench loader`: how fast clips arrive, against other loaders on the same videos and the hardware's limit.

On a CPU the unit is clips per CPU-second (process time, decoding on one thread), which does not depend on what else
the machine does; paths take turns in rounds, and a ratio is the median over rounds. On a GPU it is clips per second of
wall clock.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from ...pipeline.loading.gop_reader import GopReader
from ...pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler
from ...pipeline.shards.index import SampleIndex
from ..harness.loader.on_cores import h264_on_cores
from ..harness.loader.on_gpu import cores_to_gpu, on_gpu, planned
from ..harness.loader.options import LoaderBench
from ..harness.loader.peers import DECODERS, PeerDataset, WholeFileReader, peer_batches, unavailable, webdataset_batches
from ..harness.loader.remote import clips_from_afar
from ..harness.loader.rows import (
    BEFORE,
    LAYERED,
    OURS,
    WHOLE,
    by_start_row,
    rate_row,
    reading_row,
    start_row,
    vp9_rows,
    whole_files_row,
)
from ..harness.loader.sweep import sweep
from ..harness.loader.turns import StartingNear, alternate, reading_rate, starts, through_dali
from ..harness.nvdec import missing_library
from ..harness.record import ResultFile, quantiles
from ..harness.section import Chart, Section
from ..harness.synthetic_videos import synthetic_dataset

__all__ = ["LoaderBench", "planned", "run"]

_READS = 2000  # clips of which only the bytes are read, a round

_CHARTS = {
    "cores": Chart(
        title="Delivering random clips of H.264, one CPU core",
        reading="The same clips on every path, decoded by libavcodec. P-only is an ordinary file; layered ones decode "
        "only every second frame for a clip of every second frame; CAVLC is the entropy coder that a processor decodes "
        "faster. Bare decoding delivers nothing: no path can be faster.",
    ),
    "rate": Chart(
        title="Delivering random clips, one CPU core",
        reading="The same clips of the same VP9 videos on every path. DALI's CPU decoder is there for machines without "
        "a GPU, it is no fast path; what our format buys is the distance between the two bars that DALI decodes.",
    ),
    "start": Chart(
        title="Cost of a clip by where in the video it starts",
        reading="DALI's decoder does not seek: fed whole files, a late clip costs all frames before it. Fed only the "
        "GOPs that the clip touches, it costs the same everywhere.",
    ),
    "gpu rate": Chart(
        title="Delivering random clips to the GPU",
        reading="Wall clock. The limit is what the video decoders deliver of whole files, over the frames that they "
        "decode for a clip.",
    ),
    "gpu start": Chart(title="Clips by where in the video they start", reading="On the GPU."),
    "threads": Chart(title="Decoder threads and pipelines", reading="16x2 clips.", main=False),
    "decoders": Chart(
        title="Sequential decoding",
        reading="What the decoders can do at best: whole files from first to last frame.",
        main=False,
    ),
}
SECTIONS = {
    "loader": Section(
        title="Loader: shards to clips",
        text="Random clips against other loaders, on the same videos.",
        order=30,
        picture="data",
        charts=_CHARTS,
    ),
    "loader_on_cpu": Section(
        title="Loader on the processor of a GPU machine",
        text="Where the GPU's video decoders cannot be used.",
        order=31,
        picture="data",
        charts=_CHARTS,
    ),
}


def run(config: LoaderBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if config.data is not None:
        return _own_shards(config, torch.device(device))
    notes: list[str] = []
    measure = on_gpu if device == "cuda" else _on_cpu
    if device == "cuda" and (reason := missing_library()):
        notes.append(f"NVDEC left out: {reason}; the processor's cores decode for the GPU instead")
        measure = cores_to_gpu
    forced = device == "cpu" and torch.cuda.is_available()  # the file's name ends in the machine's device
    results = ResultFile("loader_on_cpu" if forced else "loader", out=config.out, notes=notes)
    with tempfile.TemporaryDirectory() as temporary:
        measure(config, config.videos or Path(temporary), results)
    results.show(f"clip loader, {device}")
    return results.finish()


def _own_shards(config: LoaderBench, device: torch.device) -> Path:
    """The best setting for ``config.data``, printed as flags."""
    clip = config.clip
    shape = f"{clip.frames}x{clip.stride} clips at {clip.size}, batch {config.batch}, wall clock, no training"
    results = ResultFile("loader_sweep", out=config.out, notes=[shape])
    best = sweep(config, device, results)
    results.show(f"clip loader, {config.data}, {device}")
    path = results.finish(f"best: {best}")
    print(f"best: {best}")
    return path


def _on_cpu(config: LoaderBench, videos: Path, results: ResultFile) -> None:
    torch.set_num_threads(1)
    default = h264_on_cores(config.rounds, 2 * config.clips, videos, results)
    with tempfile.TemporaryDirectory() as folder:
        large = ClipConfig()  # as the recipes have it: 32x2 at 224
        clips_from_afar(default.root, Path(folder), large, config.rounds, 6 * config.clips, results)
    reading = [reading_rate(default.index, default.root, default.sampler(), _READS) for _ in range(config.rounds + 1)]
    results.add(reading_row(quantiles(reading[1:])))  # the first warms up
    _vp9_through_dali(config, videos, results)


def _vp9_through_dali(config: LoaderBench, videos: Path, results: ResultFile) -> None:
    """DALI's decoder on a CPU, with slices and with whole files, beside other loaders."""
    clip = ClipConfig(frames=16, stride=2, size=112)
    even = AugmentConfig(starts="even")  # the same clips of every dataset, layered or not

    def converted(folder: str, **options) -> tuple[SampleIndex, Path, TrainSampler]:
        root = synthetic_dataset(videos / folder, videos=8, codec="vp9", **options)
        index = SampleIndex.load(root)
        return index, root, TrainSampler(index, clip, even, seed=0)

    index, root, sampler = default = converted("vp9")
    layered, before = converted("vp9_layers", layers=2), converted("vp9_crf31", quality=31)
    results.note("VP9 336x256, 250 frames, GOP 12; clips 16x2, random crop to 112x112; the same clips on every path")

    def ours(dataset: tuple[SampleIndex, Path, TrainSampler], reader: type[GopReader] = GopReader):
        return lambda at: through_dali(dataset[0], dataset[1], reader, dataset[2], at)

    paths: dict[str, Callable[[np.ndarray], Iterable]] = {
        OURS: ours(default),
        WHOLE: ours(default, WholeFileReader),
        LAYERED: ours(layered),
        BEFORE: ours(before),
    }
    for name, decode in DECODERS.items():
        if reason := unavailable(decode):
            results.note(f"{name} skipped: {reason}")
        else:
            paths[name] = lambda at, d=decode: peer_batches(PeerDataset(root, sampler, at, d), 8, workers=0)
    decode = DECODERS["PyAV + DataLoader"]
    paths["webdataset + PyAV"] = lambda at: webdataset_batches(PeerDataset(root, sampler, at, decode), 8)
    rates = alternate(paths, config.rounds, config.clips)
    results.add(*(rate_row(name, quantiles(rate)) for name, rate in rates.items()))
    ratio = np.array(rates[OURS]) / np.array(rates[WHOLE])
    results.add(whole_files_row(quantiles(ratio.tolist())))
    results.add(*vp9_rows(rates))
    _cost_by_start(config, index, root, clip, results)


def _cost_by_start(config: LoaderBench, index: SampleIndex, root: Path, clip: ClipConfig, results: ResultFile) -> None:
    """Cost of a clip by where in the video it starts."""
    gop, places = int(index.gop[0]), starts(index, clip)
    clips = -(-config.clips // gop) * gop  # every phase of the GOP equally often
    for name, reader in ((OURS, GopReader), (WHOLE, WholeFileReader)):
        paths = {
            f"{name}, start {start}": (
                lambda at, s=start, r=reader: through_dali(index, root, r, StartingNear(index, clip, s), at)
            )
            for start in places
        }
        rates = alternate(paths, max(2, config.rounds - 2), clips)
        cost = [quantiles([1000 / rate for rate in found]) for found in rates.values()]
        for start, values in zip(places, cost, strict=True):
            results.add(start_row(name, start, start + gop - 1, values))
        middle = [values["p50"] for values in cost]
        results.add(by_start_row(name, max(middle) / min(middle)))

"""`unstill bench loader`: how fast clips arrive, against other loaders on the same videos and the hardware's limit.

On a CPU the unit is clips per CPU-second (process time, decoding on one thread), which does not depend on what else
the machine does; paths take turns in rounds, and a ratio is the median over rounds. On a GPU it is clips per second of
wall clock.
"""

import gc
import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ...pipeline.loading.bad_clips import BadClips
from ...pipeline.loading.clip_stream import ClipStream
from ...pipeline.loading.cores_decoder import CoresDecoder
from ...pipeline.loading.encoded_batch import Decoder, EncodedBatch
from ...pipeline.loading.gop_reader import GopReader, shards_in
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.loader_config import LoaderConfig
from ...pipeline.loading.sampler import (
    AugmentConfig,
    ClipConfig,
    ClipRequests,
    TrainSampler,
    frame_numbers,
    step_positions,
)
from ...pipeline.loading.shared_decoder import SharedDecoder
from ...pipeline.progress import Progress
from ...pipeline.shards.index import SampleIndex
from ..harness import cores_paths
from ..harness.cores_paths import Shards
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
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Role, Row
from ..harness.section import Chart, Section
from ..harness.synthetic_videos import synthetic_dataset, synthetic_video
from ..harness.workload import START_SECONDS

# the project's targets
LEAST_OF_WHOLE_FILES, MOST_BY_START, LEAST_READ, LEAST_OF_BOTH = 1.8, 1.3, 5000.0, 1.6
NAMES = {"h264": "H.264", "hevc": "HEVC"}
OURS, WHOLE = "unstill (GOPs only)", "DALI, whole file"

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
        charts=_CHARTS,
    ),
    "loader_on_cpu": Section(
        title="Loader on the processor of a GPU machine",
        text="Where the GPU's video decoders cannot be used.",
        order=31,
        charts=_CHARTS,
    ),
}


@dataclass(frozen=True, kw_only=True)
class LoaderBench:
    """Measure the clip loader against its peers."""

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
    codecs: tuple[Literal["h264", "hevc"], ...] = ("h264",)
    """GPU: codecs of the videos. NVDEC of the Hopper generation decodes HEVC faster than H.264."""
    count: int = 128
    """GPU: videos of each codec."""
    threads: tuple[int, ...] = (7, 14, 16, 28)
    """GPU: DALI threads to try, which are decoder sessions; an H100 has 7 decoders."""
    pipelines: tuple[int, ...] = (1, 2)
    """GPU: DALI pipelines to try with each number of threads."""
    peers: bool = True
    """GPU: also the other loaders, and clips by where they start."""


def run(config: LoaderBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    notes: list[str] = []
    if device == "cuda" and (reason := missing_library()):
        notes.append(f"GPU part left out: {reason}; measured on the CPU instead")
        device = "cpu"
    forced = device == "cpu" and torch.cuda.is_available()  # the file's name ends in the machine's device
    results = ResultFile("loader_on_cpu" if forced else "loader", out=config.out, notes=notes)
    with tempfile.TemporaryDirectory() as temporary:
        (_on_gpu if device == "cuda" else _on_cpu)(config, config.videos or Path(temporary), results)
    results.show(f"clip loader, {device}")
    return results.finish()


# ---- CPU ----


def _on_cpu(config: LoaderBench, videos: Path, results: ResultFile) -> None:
    torch.set_num_threads(1)
    root = synthetic_dataset(videos / "vp9", videos=8, codec="vp9")
    clip, index = ClipConfig(frames=16, stride=2, size=112), SampleIndex.load(root)
    sampler = TrainSampler(index, clip, AugmentConfig(), seed=0)
    results.note("VP9 336x256, 250 frames, GOP 12; clips 16x2, random crop to 112x112; the same clips on every path")

    paths: dict[str, Callable[[np.ndarray], Iterable]] = {
        OURS: lambda at: _through_dali(index, root, GopReader, sampler, at),
        WHOLE: lambda at: _through_dali(index, root, WholeFileReader, sampler, at),
    }
    for name, decode in DECODERS.items():
        if reason := unavailable(decode):
            results.note(f"{name} skipped: {reason}")
        else:
            paths[name] = lambda at, d=decode: peer_batches(PeerDataset(root, sampler, at, d), 8, workers=0)
    decode = DECODERS["PyAV + DataLoader"]
    paths["webdataset + PyAV"] = lambda at: webdataset_batches(PeerDataset(root, sampler, at, decode), 8)

    _h264_on_cores(config, videos, results)
    rates = _alternate(paths, config.rounds, config.clips)
    results.add(*(rate_row(name, quantiles(rate)) for name, rate in rates.items()))
    ratio = np.array(rates[OURS]) / np.array(rates[WHOLE])
    results.add(whole_files_row(quantiles(ratio.tolist())))
    _cost_by_start(config, index, root, clip, results)
    reading = [_reading_rate(index, root, sampler, 2000) for _ in range(config.rounds + 1)][1:]  # the first warms up
    results.add(reading_row(quantiles(reading)))


_H264 = {  # the same videos, encoded in three ways
    "P-only, CABAC": {"layers": 1, "entropy": "cabac"},
    "layered, CABAC": {"layers": 2, "entropy": "cabac"},
    "layered, CAVLC": {"layers": 2, "entropy": "cavlc"},
}


def _h264_on_cores(config: LoaderBench, videos: Path, results: ResultFile) -> None:
    """H.264 through libavcodec on the cores."""
    clip = ClipConfig(frames=16, stride=2, size=112)
    sets = {}
    for name, options in _H264.items():
        folder = videos / "h264_{layers}_{entropy}".format(**options)
        sets[name] = Shards(synthetic_dataset(folder, videos=8, codec="h264", **options), clip)
    paths: dict[str, Callable[[np.ndarray], Iterable]] = {
        f"unstill, {name}": lambda at, s=shards: cores_paths.ours(s, at) for name, shards in sets.items()
    }
    paths |= {f"{name}, P-only": path for name, path in cores_paths.peers(sets["P-only, CABAC"]).items()}
    if path := cores_paths.torchcodec_on_slices(sets["layered, CAVLC"]):
        paths["torchcodec on our slices, layered, CAVLC"] = path
    rates = _alternate(paths, config.rounds, config.clips)
    limits: dict[str, list[float]] = {name: [] for name in sets}
    for turn in range(config.rounds):
        at = np.arange(turn * config.clips, (turn + 1) * config.clips)
        for name, shards in sets.items():
            limits[name].append(config.clips / cores_paths.bare(shards, at))
    for name, rate in rates.items():
        results.add(cores_rate_row(name, quantiles(rate)))
    for name, rate in limits.items():
        results.add(cores_rate_row(f"bare decoding, {name}", quantiles(rate)))

    own = {name: np.array(rates[f"unstill, {name}"]) for name in sets}
    others = {name: np.array(rate) for name, rate in rates.items() if not name.startswith(("unstill", "torchcodec on"))}
    best = max(others, key=lambda name: float(np.median(others[name])))
    plain, layered, default = own.values()
    results.add(ratio_row("unstill / the best peer, P-only", plain / others[best], 1.15, peer=best))
    results.add(ratio_row("layered / P-only, CABAC", layered / plain, 1.25))
    torchcodec = next((rate for name, rate in others.items() if name.startswith("torchcodec")), None)
    if torchcodec is not None:
        results.add(ratio_row("layered CAVLC / torchcodec on P-only CABAC", default / torchcodec, 2.2))
    for name in sets:
        share = own[name] / np.array(limits[name])
        results.add(ratio_row(f"unstill / bare decoding, {name}", share, 0.8))
    at = np.arange(1000)
    for frames, most in ((16, 1.25), (32, 1.15)):
        shape = replace(clip, frames=frames)
        found = cores_paths.decoded_per_delivered(replace(sets["layered, CAVLC"], clip=shape), at)
        title = f"frames decoded per frame delivered, {frames}x2, layered"
        results.add(Row(title=title, value=found, unit="frames", at_most=most, facts={"measure": "decoded"}))
    _cores_by_start(config, sets["layered, CAVLC"], results)
    results.add(both_row(quantiles(_both_over_one(config, sets["layered, CAVLC"]))))


def _cores_by_start(config: LoaderBench, shards: Shards, results: ResultFile) -> None:
    gop, index = int(shards.index.gop[0]), shards.index
    paths = {
        f"start {start}": lambda at, s=start: cores_paths.ours(shards, at, _StartingNear(index, shards.clip, s, 2))
        for start in _starts(index, shards.clip)
    }
    rates = _alternate(paths, max(2, config.rounds - 2), -(-config.clips // gop) * gop)
    middle = [float(np.median(rate)) for rate in rates.values()]
    title, value = "unstill, H.264 on the cores, slowest / fastest start", max(middle) / min(middle)
    results.add(Row(title=title, value=value, unit="times", at_most=MOST_BY_START, facts={"measure": "by start"}))


def _both_over_one(config: LoaderBench, shards: Shards) -> list[float]:
    """Wall clock of two equal decoders that share batches over one alone: the only rows where wall clock counts."""
    index, size, device = shards.index, shards.clip.size, torch.device("cpu")
    reader = GopReader(index, shards_in(shards.root, index))
    batches, frames = [], np.asarray(index.frames, np.int64)
    for step in range(6):
        r = shards.sampler().draw(step_positions(step, 16))
        numbers = frame_numbers(shards.clip, r.start_frame, r.stride, frames[r.sample])
        clips = [reader.clip(sample, row) for sample, row in zip(r.sample.tolist(), numbers, strict=True)]
        none = np.zeros(len(clips), np.int64)
        tables = [clip.table for clip in clips if clip.table]
        batches.append(EncodedBatch(r, [c.mp4 for c in clips], np.stack([c.frames for c in clips]), none, none, tables))
    reader.close()

    def seconds(make: Callable[[], Decoder]) -> float:
        decoder, begin = make(), time.perf_counter()
        for n in range(len(batches) + 2):
            if n < len(batches):
                decoder.submit(batches[n])
            if n >= 2:
                decoder.collect()
        elapsed = time.perf_counter() - begin
        decoder.close()
        return elapsed

    one = lambda: CoresDecoder(index, size, device, 1)  # noqa: E731
    return [seconds(one) / seconds(lambda: SharedDecoder([(one(), 2), (one(), 2)])) for _ in range(config.rounds)]


def cores_rate_row(path: str, rate: dict[str, float]) -> Row:
    """Clips of H.264 that a path delivers in a second of CPU time."""
    role: Role = "ours" if path.startswith("unstill") else "limit" if path.startswith("bare") else "peer"
    unit, facts = "clips per CPU-second", {"measure": "rate", "path": path, "codec": "h264"}
    return Row(
        title=f"H.264: {path}", **spread(rate), unit=unit, better="higher", figure="cores", role=role, facts=facts
    )


def ratio_row(title: str, ratio: np.ndarray, least: float, **facts) -> Row:
    """One path over another in the same rounds, on H.264 through the cores."""
    facts = {"measure": "ratio", "codec": "h264"} | facts
    return Row(title=f"H.264: {title}", **spread(quantiles(ratio.tolist())), unit="times", at_least=least, facts=facts)


def both_row(ratio: dict[str, float]) -> Row:
    """Two decoders over one."""
    title, facts = "two equal decoders share batches / one alone", {"measure": "both", "clock": "wall"}
    return Row(title=title, **spread(ratio), unit="times", at_least=LEAST_OF_BOTH, facts=facts)


def _role(path: str) -> Role:
    return "ours" if path.startswith("unstill") else "peer"


def rate_row(path: str, rate: dict[str, float]) -> Row:
    """Clips that a path delivers in a second of CPU time."""
    unit, facts = "clips per CPU-second", {"measure": "rate", "path": path}
    return Row(title=path, **spread(rate), unit=unit, better="higher", figure="rate", role=_role(path), facts=facts)


def whole_files_row(ratio: dict[str, float]) -> Row:
    """Our slices against whole files, both decoded by DALI."""
    return Row(
        title="GOPs only / whole file",
        **spread(ratio),
        unit="times",
        at_least=LEAST_OF_WHOLE_FILES,
        headline="as many clips as from whole files, with the same decoder on a CPU",
        facts={"measure": "whole files"},
    )


def start_row(path: str, start: int, last: int, cost: dict[str, float]) -> Row:
    """CPU time of a clip that starts from frame ``start`` to ``last``."""
    return Row(
        title=f"{path}, start {start}-{last}",
        **spread(cost),
        unit="CPU-ms per clip",
        better="lower",
        figure="start",
        label=f"from frame {start}-{last}",
        group=path,
        role=_role(path),
        facts={"measure": "start", "path": path},
    )


def by_start_row(path: str, ratio: float) -> Row:
    """The slowest place to start a clip over the fastest; 1 is flat. Whole files have no target."""
    ours = path == OURS
    return Row(
        title=f"{path}, slowest / fastest start",
        value=ratio,
        unit="times",
        better="lower",
        at_most=MOST_BY_START if ours else None,
        headline="at most, slowest over fastest place in a video to start a clip" if ours else "",
        facts={"measure": "by start", "path": path},
    )


def reading_row(rate: dict[str, float]) -> Row:
    """Choosing clips, fetching and checking their bytes; nothing is decoded."""
    title, unit = "sampler + reading alone", "clips per CPU-second"
    return Row(title=title, **spread(rate), unit=unit, at_least=LEAST_READ, facts={"measure": "reading"})


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
) -> Generator[torch.Tensor, None, None]:
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

    def __init__(self, index: SampleIndex, clip: ClipConfig, first: int, step: int = 1):
        self.clip, self._first, self._samples, self._step = clip, first, len(index), step
        self._gop, self._side = int(index.gop[0]), int(index.height[0])

    def draw(self, positions: np.ndarray) -> ClipRequests:
        n, zero = len(positions), np.zeros(len(positions), np.int64)
        return ClipRequests(
            position=positions,
            sample=positions % self._samples,
            start_frame=self._first + positions * self._step % self._gop,
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
    """Up to five first frames of GOPs, from the start of the videos to the last one a clip can start in."""
    gop = int(index.gop[0])
    last = (int(index.frames[0]) - (clip.frames - 1) * clip.stride - gop) // gop * gop
    return list(dict.fromkeys(round(last * part / 4 / gop) * gop for part in range(5)))


def _cost_by_start(config: LoaderBench, index: SampleIndex, root: Path, clip: ClipConfig, results: ResultFile) -> None:
    """Cost of a clip by where in the video it starts."""
    gop, starts = int(index.gop[0]), _starts(index, clip)
    clips = -(-config.clips // gop) * gop  # every phase of the GOP equally often
    for name, reader in ((OURS, GopReader), (WHOLE, WholeFileReader)):
        paths = {
            f"{name}, start {start}": (
                lambda at, s=start, r=reader: _through_dali(index, root, r, _StartingNear(index, clip, s), at)
            )
            for start in starts
        }
        rates = _alternate(paths, max(2, config.rounds - 2), clips)
        cost = [quantiles([1000 / rate for rate in found]) for found in rates.values()]
        for start, values in zip(starts, cost, strict=True):
            results.add(start_row(name, start, start + gop - 1, values))
        middle = [values["p50"] for values in cost]
        results.add(by_start_row(name, max(middle) / min(middle)))


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


def _on_gpu(config: LoaderBench, videos: Path, results: ResultFile) -> None:
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
        if config.peers and codec == config.codecs[0]:
            _gpu_cost_by_start(config, index, root, clip, best[0], results)
            for frames in (16, 32):
                _peer_paths(config, index, root, codec, ClipConfig(frames=frames, stride=2), best[0], results)


def planned(config: LoaderBench) -> float:
    """Seconds that a GPU machine should need at most."""
    each = config.seconds + 1.5  # opening and warming up
    encoding = {"h264": 0.1, "hevc": 0.6}  # seconds a video, on 16 cores
    measured = len(config.threads) * len(config.pipelines) + len(_SESSIONS) + 2 + 2
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
    said = {"title": path, "role": _role(path), "facts": {"path": path, **rest}} | more
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
    starts = _starts(index, clip)
    for name, reader in ((OURS, GopReader), (WHOLE, WholeFileReader)):
        rates = []
        for start in starts:
            sampler = _StartingNear(index, clip, start)
            batches = _through_dali(index, root, reader, sampler, np.arange(1_000_000), 64, "cuda", threads)
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

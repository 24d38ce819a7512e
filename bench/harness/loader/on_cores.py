"""H.264 through libavcodec on the processor: beside its peers, and beside decoding alone."""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ....pipeline.loading.cores_decoder import CoresDecoder
from ....pipeline.loading.encoded_batch import Decoder, EncodedBatch
from ....pipeline.loading.gop_reader import GopReader, shards_in
from ....pipeline.loading.sampler import ClipConfig, frame_numbers, step_positions
from ....pipeline.loading.shared_decoder import SharedDecoder
from ..record import ResultFile, quantiles
from ..row import Row
from ..synthetic_videos import synthetic_dataset
from . import cores_paths
from .cores_paths import Shards
from .rows import MOST_BY_START, both_row, converted_row, cores_rate_row, memory_row, ratio_row
from .turns import StartingNear, alternate, starts

_H264 = {  # the same videos, encoded in three ways
    "P-only, CABAC": {"layers": 1, "entropy": "cabac"},
    "layered, CABAC": {"layers": 2, "entropy": "cabac"},
    "layered, CAVLC": {"layers": 2, "entropy": "cavlc"},
}


def h264_on_cores(rounds: int, clips: int, videos: Path, results: ResultFile) -> Shards:
    """H.264 through libavcodec on one core.

    Args:
        rounds, clips: how often every path takes its turn, and with how many clips.
        videos: where the datasets are, or are made.

    Returns:
        The dataset as the converter makes it by default: layered, CAVLC.
    """
    clip = ClipConfig(frames=16, stride=2, size=112)
    sets = {}
    for name, options in _H264.items():
        folder = videos / "h264_{layers}_{entropy}".format(**options)
        sets[name] = Shards(synthetic_dataset(folder, videos=8, codec="h264", **options), clip)
    default = sets["layered, CAVLC"]
    rates, limits, converted = _rates(sets, rounds, -(-4 * clips // cores_paths.BATCH) * cores_paths.BATCH)
    for name, rate in (*rates.items(), *((f"bare decoding, {name}", rate) for name, rate in limits.items())):
        results.add(cores_rate_row(name, quantiles(rate)))
    results.add(*_ratios(rates, limits), converted_row(np.array(rates["unstill, layered, CAVLC"]) / converted))
    share = np.median(converted / limits["layered, CAVLC"])
    results.note(
        "bare decoding: libavcodec's decoder fed the needed packets, nothing cropped, scaled or turned to RGB; a clip "
        f"that is also cropped, scaled and turned to RGB reaches {share:.2f} of it (layered, CAVLC), without reading, "
        f"checks, threads and batches; the loader's batches are of {cores_paths.BATCH}, in the middle of a run"
    )
    at = np.arange(1000)
    for frames, most in ((16, 1.25), (32, 1.15)):
        found = cores_paths.decoded_per_delivered(replace(default, clip=replace(clip, frames=frames)), at)
        title = f"frames decoded per frame delivered, {frames}x2, layered"
        results.add(Row(title=title, value=found, unit="frames", at_most=most, facts={"measure": "decoded"}))
    _by_start(rounds, clips, default, results)
    results.add(both_row(quantiles(_both_over_one(rounds, default))))
    results.add(memory_row(_growth(default, more := 40 * clips), more))
    return default


def _rates(sets: dict[str, Shards], rounds: int, clips: int) -> tuple[dict[str, list[float]], dict, np.ndarray]:
    """Clips per CPU-second in every round: of all paths; of bare decoding; of decoding and RGB alone."""
    bare, alone = "bare decoding, {}", "decoding and RGB alone"
    paths: dict[str, Callable[[np.ndarray], Iterable | float]] = {}
    for name, shards in sets.items():  # each beside its limit, so that a machine that changes its speed changes both
        paths[f"unstill, {name}"] = lambda at, s=shards: cores_paths.under_way(s, at)
        paths[bare.format(name)] = lambda at, s=shards: cores_paths.bare(s, at)
    paths[alone] = lambda at: cores_paths.decoded_and_converted(sets["layered, CAVLC"], at)
    paths |= {f"{name}, P-only": path for name, path in cores_paths.peers(sets["P-only, CABAC"]).items()}
    if path := cores_paths.torchcodec_on_slices(sets["layered, CAVLC"]):
        paths["torchcodec on our slices, layered, CAVLC"] = path
    rates = alternate(paths, rounds, clips)
    limits = {name: rates.pop(bare.format(name)) for name in sets}
    return rates, limits, np.array(rates.pop(alone))


def _ratios(rates: dict[str, list[float]], limits: dict[str, list[float]]) -> list[Row]:
    own = {name: np.array(rates[f"unstill, {name}"]) for name in limits}
    others = {name: np.array(rate) for name, rate in rates.items() if not name.startswith(("unstill", "torchcodec on"))}
    best = max(others, key=lambda name: float(np.median(others[name])))
    plain, layered, default = own.values()
    rows = [
        ratio_row("unstill / the best peer, P-only", plain / others[best], 1.15, peer=best),
        ratio_row("layered / P-only, CABAC", layered / plain, 1.25),
    ]
    torchcodec = next((rate for name, rate in others.items() if name.startswith("torchcodec")), None)
    if torchcodec is not None:
        rows.append(ratio_row("layered CAVLC / torchcodec on P-only CABAC", default / torchcodec, 2.2))
    return rows + [
        ratio_row(f"unstill / bare decoding, {name}", own[name] / np.array(limits[name]), 0.8) for name in limits
    ]


def _growth(shards: Shards, clips: int) -> float:
    """MB that the process grows by while clips are delivered, after as many that warm it up.

    In one run: what a run frees at its end, the C library may keep for later or not.
    """
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6  # noqa: E731
    delivered, warm, now = 0, None, 0.0
    for batch in cores_paths.ours(shards, np.arange(2 * clips)):
        delivered, now = delivered + len(batch), resident()
        if warm is None and delivered >= clips:
            warm = now
    assert warm is not None, "no clips"
    return now - warm


def _by_start(rounds: int, clips: int, shards: Shards, results: ResultFile) -> None:
    gop, index = int(shards.index.gop[0]), shards.index
    paths = {
        f"start {start}": lambda at, s=start: cores_paths.ours(shards, at, StartingNear(index, shards.clip, s, 2))
        for start in starts(index, shards.clip)
    }
    rates = alternate(paths, max(2, rounds - 2), -(-clips // gop) * gop)
    middle = [float(np.median(rate)) for rate in rates.values()]
    title, value = "unstill, H.264 on the cores, slowest / fastest start", max(middle) / min(middle)
    results.add(Row(title=title, value=value, unit="times", at_most=MOST_BY_START, facts={"measure": "by start"}))


def _both_over_one(rounds: int, shards: Shards) -> list[float]:
    """Wall clock of two equal decoders that share batches over one alone: the only rows where wall clock counts."""
    index, size, device = shards.index, shards.clip.size, torch.device("cpu")
    reader = GopReader(index, shards_in(shards.root, index))
    batches, frames = [], np.asarray(index.frames, np.int64)
    for step in range(12):
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
    return [seconds(one) / seconds(lambda: SharedDecoder([(one(), 2), (one(), 2)])) for _ in range(rounds)]

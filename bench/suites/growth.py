"""`unstill bench growth`: what a dataset costs before the first clip, against its number of samples.

Synthetic index entries (300 frames, GOP 12: 25 fragments, as a ten-second Kinetics video at 30 fps has) at 1e4 .. 1e7
samples: opening the index, drawing the first and a later batch of a shuffled epoch, and the memory that this takes.
Each size runs in a process of its own, so that memory is not shared between them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler
from ...pipeline.progress import Progress
from ...pipeline.shards.index import INDEX_NAME, SampleIndex
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Chart, Section

FRAMES, GOP, KEY_BYTES, FRAGMENT_BYTES = 300, 12, 24, 12_000
BATCH = 256
# the project's targets, which are for an index of so many videos
TARGET_SAMPLES, MOST_START_UP_MS, MOST_BYTES = 1_000_000, 2000.0, 200

SECTIONS = {
    "growth": Section(
        title="Growth with the dataset",
        text="What ten thousand to ten million videos cost before the first clip.",
        order=40,
        picture="data",
        charts={
            "memory": Chart(
                title="Memory for each video of a dataset",
                reading="What a process grows by to open the index and draw shuffled clips. The target is for a "
                "million; ten thousand carry the fixed costs alone.",
            ),
            "start-up": Chart(
                title="Start-up against the size of a dataset",
                reading="From opening the index to the addresses of the first clips of two epochs, each shuffled as a "
                "whole. The target is for a million.",
            ),
        },
    )
}


@dataclass(frozen=True, kw_only=True)
class GrowthBench:
    """Measure start-up time and memory against the number of samples."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    samples: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    """Sizes of the synthetic index; ten million take 3 GB of disk while it runs."""


def run(config: GrowthBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    notes = [
        "memory: what the process grew by over all steps, pages of the mapped file that were touched included",
        f"index: {FRAMES} frames in fragments of {GOP}; a batch is {BATCH} clips",
    ]
    results = ResultFile("growth", out=config.out, notes=notes)
    with Progress("growing", len(config.samples), "sizes") as progress:
        for samples in config.samples:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / INDEX_NAME
                synthetic_index(samples).save(path)
                results.add(*size_rows(samples, _measure_in_new_process(path)))
            progress.advance()
    results.show("growth")
    return results.finish()


def size_rows(samples: int, found: dict[str, float]) -> tuple[Row, Row]:
    """Memory and start-up of one size of dataset.

    Args:
        samples: videos in the index.
        found: what ``measure`` printed.
    """
    name, facts = f"{samples:,} videos", {"samples": samples}
    target = samples == TARGET_SAMPLES
    memory = Row(
        title=f"memory for {name}",
        value=found["memory_bytes_per_sample"],
        unit="bytes a video",
        better="lower",
        at_most=MOST_BYTES if target else None,
        headline="of memory for each of a million videos, ready to be shuffled" if target else "",
        figure="memory",
        label=name,
        facts={"measure": "memory", **facts, **{n: found[n] for n in ("index_mb", "index_bytes_per_sample")}},
    )
    start = Row(
        title=f"start-up for {name}",
        value=found["start_up_s"] * 1e3,
        unit="ms",
        better="lower",
        at_most=MOST_START_UP_MS if target else None,
        figure="start-up",
        label=name,
        facts={"measure": "start-up", **facts} | {n: value for n, value in found.items() if n.endswith("_s")},
    )
    return memory, start


def synthetic_index(samples: int) -> SampleIndex:
    """An index of ``samples`` equal videos, one shard for every thousand."""
    fragments = -(-FRAMES // GOP)
    rows = np.arange(samples)
    ends = np.tile(np.arange(1, fragments + 1, dtype=np.uint32) * FRAGMENT_BYTES + 800, samples)
    full = lambda value, dtype: np.full(samples, value, dtype)  # noqa: E731
    size = fragments * FRAGMENT_BYTES + 800
    return SampleIndex(
        shard=(rows // 1000).astype(np.int32),
        mp4_offset=(rows % 1000).astype(np.int64) * (size + 4096),
        mp4_bytes=full(size, np.uint32),
        init_bytes=full(800, np.uint32),
        init_crc=full(0, np.uint32),
        frames=full(FRAMES, np.int32),
        fps_milli=full(30_000, np.int32),
        label=(rows % 400).astype(np.int32),
        gop=full(GOP, np.uint16),
        width=full(336, np.uint16),
        height=full(256, np.uint16),
        codec=full(0, np.uint8),
        fragment_row=np.arange(samples + 1, dtype=np.int64) * fragments,
        fragment_end=ends,
        fragment_crc=np.zeros(samples * fragments, np.uint32),
        key_end=(rows + 1).astype(np.int64) * KEY_BYTES,
        key_text=np.full(samples * KEY_BYTES, ord("k"), np.uint8),
        shard_names=tuple(f"shards/{shard:05d}.tar" for shard in range(-(-samples // 1000))),
        classes=tuple(f"class {label}" for label in range(400)),
    )


def _measure_in_new_process(path: Path) -> dict[str, float]:
    code = f"from unstill.bench.suites.growth import measure; measure({str(path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return json.loads(done.stdout)


def measure(path: str) -> None:
    """Open, draw, resume; prints one JSON object. Run in a fresh process."""
    before = _memory()
    start = time.perf_counter()
    index = SampleIndex.load(path)
    opened = time.perf_counter()
    sampler = TrainSampler(index, ClipConfig(frames=16, stride=2), AugmentConfig(), 0)
    sampler.draw(np.arange(BATCH))
    first = time.perf_counter()
    sampler.draw(np.arange(BATCH) + len(index) * 3 // 2)  # the middle of the second epoch: what resuming asks for
    resumed = time.perf_counter()
    rows = np.random.default_rng(0).integers(0, len(index), 4096)
    index.fragment_end[index.fragment_row[rows]].sum()
    print(
        json.dumps(
            {
                "index_mb": os.path.getsize(path) / 1e6,
                "index_bytes_per_sample": os.path.getsize(path) / len(index),
                "open_s": opened - start,
                "first_batch_s": first - opened,
                "resume_batch_s": resumed - first,
                "start_up_s": resumed - start,
                "memory_bytes_per_sample": (_memory() - before) / len(index),
            }
        )
    )


def _memory() -> int:
    """Bytes resident now: private ones, and pages of the memory map that were touched."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

"""`unstill bench safety`: what protection against untrusted files costs: fences, checks of sizes, isolation.

Every number is process CPU time, with the protection and without it in turns on the same work, so that it does not
depend on what else the machine does; the ratio is the median over the rounds.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...pipeline.conversion.content_hash import block_digest
from ...pipeline.conversion.convert import ConvertConfig
from ...pipeline.conversion.sandbox.pool import Worker
from ...pipeline.loading.decoders import DecoderName
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.loader_config import LoaderConfig
from ...pipeline.loading.sampler import AugmentConfig, ClipConfig
from ...pipeline.sandbox.process import Limits, Sandbox
from ...pipeline.shards.video_format import Codec
from ...trainer.build import open_loader
from ...trainer.config import TrainConfig
from ...trainer.recipes import RECIPES
from ...trainer.train import train
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Row
from ..harness.section import Section
from ..harness.synthetic_videos import synthetic_dataset, synthetic_video

MOST_OF_CONVERSION, MOST_OF_LOADER, MOST_OF_DEMONSTRATION = 1.02, 1.01, 1.01
CLIP = ClipConfig(frames=16, stride=2, size=224)
SECTIONS = {
    "safety": Section(
        title="What protection costs",
        text="CPU time with it over CPU time without it, in turns on the same work.",
        order=24,
    ),
    "fuzz": Section(
        title="Files with random faults",
        text="How reading them ended; written by tests/fuzz/campaign.py.",
        order=26,
    ),
}


@dataclass(frozen=True, kw_only=True)
class SafetyBench:
    """Measure the cost of fences, checks and isolation."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    rounds: int = 7
    """Measurements with and without, in turns."""
    steps: int = 12
    """Batches of eight clips in a measurement of the loader."""
    videos: int = 8
    """Videos that clips are cut from."""


def run(config: SafetyBench) -> Path:
    """Measure, print the table, write the result file and return its path."""
    results = ResultFile("safety", out=config.out, notes=["Checks: sizes in container and stream; record of clips."])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results.add(conversion_row(config, folder))
        pairs: tuple[tuple[Codec, DecoderName], ...] = (("vp9", "dali"), ("h264", "cores"))
        for codec, decoder in pairs:
            shards = synthetic_dataset(folder / codec, videos=config.videos, codec=codec, frames=120)
            results.add(loader_row(config, shards, decoder, folder))
        results.add(*isolation_rows(config, folder / "h264"))
        results.add(demonstration_row(config, folder))
    results.show("what protection costs")
    return results.finish()


def planned(config: SafetyBench) -> float:
    """Seconds that a GPU machine should need at most."""
    return 60 + 12 * config.rounds


def in_turns(rounds: int, with_it: Callable[[], float], without: Callable[[], float]) -> list[float]:
    """The ratio of two costs in each round; who begins changes."""
    ratios = []
    for number in range(rounds):
        a, b = (with_it(), without()) if number % 2 else reversed((without(), with_it()))
        ratios.append(a / b)
    return ratios


def ratio_row(title: str, ratios: list[float], most: float | None, **facts: object) -> Row:
    """CPU time with protection over CPU time without it."""
    return Row(title=title, **spread(quantiles(ratios)), unit="times", better="lower", at_most=most, facts=facts)


def conversion_row(config: SafetyBench, folder: Path) -> Row:
    """One video transcoded by a worker behind its fences and by one without."""
    source = folder / "source.mp4"
    synthetic_video(source, 60, 256, 340, seed=0)
    data = source.read_bytes()
    with open(source, "rb") as file:
        facts = {"bytes": len(data), "content": block_digest(file, 0, len(data)), "modified": None, "offset": 0}
    recipe = asdict(ConvertConfig(source="", out="").recipe())
    task = {"path": str(source), **facts, "start": None, "end": None, "recipe": recipe}

    def worker(sandbox: Sandbox) -> Worker:
        return Worker(Limits(seconds=300.0, memory_bytes=320 << 20, sandbox=sandbox))

    with closing(worker("auto")) as fenced, closing(worker("off")) as open_one:

        def cost(one: Worker) -> float:
            if "frames" not in (header := one.run(task)[0]):
                raise RuntimeError(f"the video was not converted: {header}")
            before = cpu_seconds(one.pid)
            one.run(task)
            return cpu_seconds(one.pid) - before

        ratios = in_turns(config.rounds, lambda: cost(fenced), lambda: cost(open_one))
    return ratio_row("conversion behind fences", ratios, MOST_OF_CONVERSION, codec="h264")


def cpu_seconds(pid: int | None) -> float:
    """CPU time of a process, all threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def loader_cost(shards: Path, config: LoaderConfig, steps: int, record: Path | None, checks: bool = True) -> float:
    """CPU seconds of this process and its children for the first ``steps`` batches of an epoch."""
    children = os.times()
    begin = time.process_time()
    with ClipLoader(
        shards, clip=CLIP, augment=AugmentConfig(), batch_size=8, device="cpu", steps=steps, config=config, run=record
    ) as loader:
        if not checks:  # as if every fragment had been compared before
            loader._reader._checked[:] = b"\1" * len(loader._reader._checked)
        for clips in loader:
            del clips
    after = os.times()
    below = after.children_user + after.children_system - children.children_user - children.children_system
    return time.process_time() - begin + below


def loader_row(config: SafetyBench, shards: Path, decoder: DecoderName, folder: Path) -> Row:
    """Clips with the comparison of sizes and the record, and without; fragments are all seen for the first time."""
    options = LoaderConfig(decoder=decoder, decode_threads=1, core_threads=1)

    def cost(on: bool) -> float:
        return loader_cost(shards, options, config.steps, folder / "run" if on else None, on)

    ratios = in_turns(config.rounds, lambda: cost(True), lambda: cost(False))
    return ratio_row(f"loader with checks and record, {decoder}", ratios, MOST_OF_LOADER, decoder=decoder)


def isolation_rows(config: SafetyBench, shards: Path) -> list[Row]:
    """``--loader.isolate`` beside decoding in the process; its start apart."""
    starts: list[float] = []

    def cost(isolate: bool) -> float:
        options = LoaderConfig(decoder="cores", core_threads=1, isolate=isolate)
        short, long = (loader_cost(shards, options, steps, None) for steps in (1, 1 + config.steps))
        starts.extend([short] if isolate else [])
        return (long - short) / (8 * config.steps)

    ratios = in_turns(config.rounds, lambda: cost(True), lambda: cost(False))
    start = {"value": statistics.median(starts), "unit": "CPU seconds", "better": "lower"}
    return [
        ratio_row("a clip decoded in a process of its own (--loader.isolate)", ratios, None, decoder="cores"),
        Row(title="two decoding processes started, and the first batch", **start),
    ]


def demonstration_row(config: SafetyBench, folder: Path) -> Row:
    """A short training of the demonstration, with checks and record and without."""
    small = {"videos": 32, "frames": 8, "height": 64, "width": 64, "gop": 8}
    shards = synthetic_dataset(folder / "small", codec="vp9", **small)
    recipe = replace(RECIPES["demo_baseline"](), data=shards, device="cpu", batch_size=8, epochs=5)

    def without(config: TrainConfig, *arguments) -> ClipLoader:
        loader = open_loader(config, *arguments)
        assert loader._precautions.in_flight is not None, "a run keeps a record of the clips that are decoded"
        loader._precautions.in_flight.close()
        loader._reader._checked[:] = b"\1" * len(loader._reader._checked)
        return loader

    count = 0

    def cost(**options) -> float:
        nonlocal count
        count += 1
        begin = time.process_time()
        train(replace(recipe, out=folder / f"run{count}"), **options)
        return time.process_time() - begin

    cost()  # what is loaded and compiled once
    ratios = in_turns(config.rounds, cost, lambda: cost(make_loader=without))
    return ratio_row("demonstration's training with checks and record", ratios, MOST_OF_DEMONSTRATION)

"""The best setting of the loader for somebody's own shards: decoder, threads and queues, one after another."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from ....pipeline.errors import InputError
from ....pipeline.loading.cpu_threads import default_core_threads, loader_threads
from ....pipeline.loading.loader import ClipLoader
from ....pipeline.loading.loader_config import LoaderConfig
from ....pipeline.loading.sampler import AugmentConfig
from ....pipeline.progress import Progress
from ....pipeline.shards.cache import remote_address
from ..record import ResultFile
from ..row import Row
from .options import LoaderBench

_NOTICED = 1.02  # a setting must be that much faster than the one before to be taken: less is noise


def sweep(config: LoaderBench, device: torch.device, results: ResultFile) -> str:
    """Measure settings, each for ``config.seconds`` after its queues are full.

    First each decoder with its default threads; then, for the fastest, its threads, queues and readers in turn, each
    from the best setting so far. Not every combination: that would take hours.

    Returns:
        The flags of the best setting.

    Raises:
        InputError: no decoder reads the dataset here.
    """
    dataset = str(config.data)
    best, rate, refused = LoaderConfig(), 0.0, []
    tried: set[LoaderConfig] = set()

    def measure(setting: LoaderConfig) -> None:
        nonlocal best, rate
        if setting in tried:
            return
        tried.add(setting)
        found = _rate(config, dataset, device, setting)
        results.add(rate_row(setting, found))
        progress.advance(note=f"{flags(setting)}: {found:.0f} clips/s")
        if found > rate * (_NOTICED if rate else 1):
            best, rate = setting, found

    with Progress("settings", None, "settings") as progress:
        for setting in _decoders(device, config.batch):
            try:
                measure(setting)
            except InputError as error:
                refused.append(f"{setting.decoder} left out: {error}")
        for sentence in refused:
            results.note(sentence)
        if not rate:
            raise InputError("; ".join(refused))
        for name, values in _choices(best, device, remote_address(dataset) is not None):
            for value in values:
                measure(replace(best, **{name: value}))
    results.note(f"best: {flags(best)} ({rate:.0f} clips/s)")
    return flags(best)


def _decoders(device: torch.device, batch: int) -> Iterator[LoaderConfig]:
    gpu = device.type == "cuda"
    threads = loader_threads(LoaderConfig(), device, batch)
    core = default_core_threads(device)
    own: dict[str, Any] = {
        "decode_threads": threads.decode,
        "pipelines": threads.pipelines,
        "read_threads": threads.read,
    }
    yield LoaderConfig(decoder="dali", **own)
    yield LoaderConfig(decoder="cores", core_threads=core, read_threads=threads.read)
    if gpu:
        yield LoaderConfig(decoder="both", core_threads=core, **own)


def _choices(best: LoaderConfig, device: torch.device, remote: bool) -> list[tuple[str, list[int]]]:
    """What may be changed of a setting, in the order in which it is tried."""
    cores = len(os.sched_getaffinity(0))
    steps = lambda middle: sorted({max(1, middle // 2), max(1, middle - 1), middle + 1, 2 * middle} - {middle})  # noqa: E731
    up_to = lambda values, most: [value for value in values if value <= most]  # noqa: E731
    found = []
    if best.decoder != "cores":
        found.append(("decode_threads", up_to(steps(best.decode_threads), 4 * cores)))
        found.append(("pipelines", [1, 2] if device.type == "cuda" else [1]))
    if best.decoder != "dali":
        found.append(("core_threads", up_to(steps(best.core_threads), 2 * cores)))
    found += [("read_threads", [1, 2, 4, 8]), ("depth", [1, 2, 3, 4]), ("read_ahead", [2, 4, 8])]
    if remote:
        found.insert(0, ("remote_requests", [8, 16, 32, 64, 128]))
    return found


def _rate(config: LoaderBench, dataset: str, device: torch.device, setting: LoaderConfig) -> float:
    """Clips per second of wall clock, without training."""
    with ClipLoader(
        dataset, clip=config.clip, augment=AugmentConfig(), batch_size=config.batch, device=device, config=setting
    ) as loader:
        for _ in range(setting.ready + setting.depth * max(1, setting.pipelines) + 1):
            next(loader)  # what was made while the first was awaited
        clips, begin = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < config.seconds:
            clips += len(next(loader))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            elapsed = time.perf_counter() - begin
    return clips / elapsed


def flags(setting: LoaderConfig) -> str:
    """The options of `unstill train` that say this; the defaults are left out, numbers of threads said."""
    default, shown = LoaderConfig(), []
    for name in ("decoder", "decode_threads", "pipelines", "core_threads", "read_threads", "depth", "read_ahead"):
        if getattr(setting, name) != getattr(default, name):
            shown.append(f"--loader.{name.replace('_', '-')} {getattr(setting, name)}")
    if setting.remote_requests != default.remote_requests:
        shown.append(f"--loader.remote-requests {setting.remote_requests}")
    return " ".join(shown)


def rate_row(setting: LoaderConfig, rate: float) -> Row:
    """Clips/s of one setting."""
    facts: dict[str, Any] = {"measure": "sweep", "clock": "wall"}
    return Row(title=flags(setting), value=rate, unit="clips/s", better="higher", facts=facts)

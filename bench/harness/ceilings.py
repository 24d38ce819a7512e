"""What this machine can do at most: bytes read, copied and moved, products computed, frames decoded in a second.

Each is a plain operation of the hardware with nothing of ours in it; the stages of the pipeline are compared with them.
"""

import mmap
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nvidia.dali import fn
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.types import DALIDataType

from .nvdec import missing_library, sequential_rate

BLOCK = 1 << 20  # bytes of one read
_PAGE = 4096  # O_DIRECT wants addresses, offsets and lengths that are multiples of it
_CACHED = 256 << 20  # bytes that are read again and again to measure the page cache


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """A limit of the machine.

    Attributes:
        name: what it is, in words.
        rate: ``unit`` in a second, or None where it could not be measured.
        unit: bytes, FLOP or frames.
        how: how it was measured, or why it was not.
    """

    name: str
    unit: str
    rate: float | None
    how: str


def repeated(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median seconds of one call, after one that does not count; at least three are timed, on a GPU by its clock."""
    function()
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.synchronize(device)
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        if gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            before = time.perf_counter()
            function()
            times.append(time.perf_counter() - before)
    return float(np.median(times))


# ------------------------------------------------------------------------------------------------- reading


def cached_reading(files: Sequence[Path], threads: int, seconds: float) -> Ceiling:
    """Bytes of files that are in the page cache, copied into the program's memory."""
    blocks = _blocks(files, _CACHED)
    _read(blocks, os.O_RDONLY, 1, None)  # now they are there
    rate = _read(blocks, os.O_RDONLY, threads, seconds)
    return Ceiling(
        name="reading, page cache", unit="bytes", rate=rate, how=f"preadv of {_size(blocks)}, {_threads(threads)}"
    )


def disk_reading(files: Sequence[Path], threads: int, seconds: float) -> Ceiling:
    """Bytes of files, past the page cache, in no order."""
    named = {"name": "reading, disk", "unit": "bytes"}
    if not hasattr(os, "O_DIRECT"):
        return Ceiling(**named, rate=None, how="this system has no O_DIRECT")
    blocks = [block for block in _blocks(files, 1 << 40) if block[2] % _PAGE == 0]
    if not blocks:
        return Ceiling(**named, rate=None, how=f"the shards are smaller than {_PAGE} bytes")
    try:
        rate = _read(blocks, os.O_RDONLY | os.O_DIRECT, threads, seconds)
    except OSError as error:
        return Ceiling(**named, rate=None, how=f"the file system of the shards refuses O_DIRECT ({error.strerror})")
    return Ceiling(**named, rate=rate, how=f"O_DIRECT from {_size(blocks)}, {_threads(threads)}; the device may cache")


def _blocks(files: Sequence[Path], most: int) -> list[tuple[Path, int, int]]:
    """(file, offset, bytes) of parts of the files, the largest first, in no order."""
    blocks, total = [], 0
    for size, path in sorted(((path.stat().st_size, path) for path in files), reverse=True):
        # whole blocks, then what is left of the file in whole pages, then nothing: O_DIRECT cannot read the rest
        offsets = [(at, min(BLOCK, size - at) // _PAGE * _PAGE or size - at) for at in range(0, size, BLOCK)]
        for offset, length in offsets:
            if total >= most:
                break
            blocks.append((path, offset, length))
            total += length
    order = np.random.default_rng(0).permutation(len(blocks))
    return [blocks[n] for n in order]


def _read(blocks: list[tuple[Path, int, int]], flags: int, threads: int, seconds: float | None) -> float:
    """Bytes a second of reading the blocks over and over; once, when ``seconds`` is None."""
    files: dict[Path, int] = {}
    totals, errors = [0] * threads, []
    end = None if seconds is None else time.perf_counter() + seconds

    def work(thread: int) -> None:
        buffer = memoryview(mmap.mmap(-1, BLOCK))  # starts at a page
        try:
            while True:
                for path, offset, length in blocks[thread::threads] or blocks:
                    totals[thread] += os.preadv(files[path], [buffer[:length]], offset)
                    if end is not None and time.perf_counter() > end:
                        return
                if end is None:
                    return
        except OSError as error:
            errors.append(error)

    try:
        for path in dict.fromkeys(path for path, _, _ in blocks):
            files[path] = os.open(path, flags | os.O_CLOEXEC)
        begin = time.perf_counter()
        workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        elapsed = time.perf_counter() - begin
    finally:
        for fd in files.values():
            os.close(fd)
    if errors:
        raise errors[0]
    return sum(totals) / elapsed


def _size(blocks: list[tuple[Path, int, int]]) -> str:
    return f"{sum(length for _, _, length in blocks) / 1e6:,.1f} MB of shards"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


# ------------------------------------------------------------------------------------------------- the device


def host_to_device(device: torch.device, seconds: float) -> Ceiling:
    """Bytes copied from pinned memory of the host to the device."""
    named = {"name": "host to device", "unit": "bytes"}
    if device.type != "cuda":
        return Ceiling(**named, rate=None, how="no CUDA device: nothing is copied")
    host = torch.empty(256 << 20, dtype=torch.uint8, pin_memory=True)
    target = torch.empty_like(host, device=device)
    rate = host.nbytes / repeated(lambda: target.copy_(host, non_blocking=True), device, seconds)
    return Ceiling(**named, rate=rate, how="256 MiB at a time, pinned")


def device_copy(device: torch.device, seconds: float) -> Ceiling:
    """Bytes that the device's memory (on a CPU the host's) reads and writes while it copies."""
    size = 1 << 30 if device.type == "cuda" else 1 << 26  # far beyond any cache
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    rate = 2 * size / repeated(lambda: target.copy_(source), device, seconds)
    where = "" if device.type == "cuda" else f", {_threads(torch.get_num_threads())}"
    return Ceiling(
        name="device memory", unit="bytes", rate=rate, how=f"copy of {size >> 20} MiB, read + written{where}"
    )


def matrix_products(device: torch.device, precision: str, seconds: float) -> Ceiling:
    """Floating point operations of a large matrix product.

    Args:
        device: where.
        precision: of the recipe: bf16, fp32 or fp64. On a CPU bf16 counts as fp32.
        seconds: how long to measure.
    """
    gpu = device.type == "cuda"
    name = precision if gpu or precision != "bf16" else "fp32"
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[name]
    side = 8192 if gpu and name == "bf16" else 4096 if gpu else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    rate = 2 * side**3 / repeated(lambda: torch.mm(a, b, out=out), device, seconds)
    where = f", {_threads(torch.get_num_threads())}" if not gpu else ", without TF32" if name == "fp32" else ""
    return Ceiling(name=f"{name} products", unit="FLOP", rate=rate, how=f"{side} x {side} x {side}{where}")


# ------------------------------------------------------------------------------------------------- the decoder


def decoding(videos: list[np.ndarray], device: torch.device, threads: int, seconds: float) -> Ceiling:
    """Frames of videos decoded from the first to the last by DALI, none skipped, none resized.

    Args:
        videos: MP4 files, uint8.
        device: cpu, or cuda for NVDEC.
        threads: of DALI; on a GPU as many decoder sessions.
        seconds: how long to measure.
    """
    named = {"name": "decoder", "unit": "frames"}
    if device.type == "cuda":
        if reason := missing_library():
            return Ceiling(**named, rate=None, how=reason)
        rate, use = sequential_rate(videos, threads, seconds)
        busy = "" if use is None else f", busy {use:.0f} % of the time"
        return Ceiling(**named, rate=rate, how=f"NVDEC through DALI, {threads} sessions{busy}")
    rate = _decoding_on_cpu(videos, threads, seconds)
    return Ceiling(**named, rate=rate, how=f"DALI on the CPU, {_threads(threads)}")


def _decoding_on_cpu(videos: list[np.ndarray], threads: int, seconds: float) -> float:
    batch = 2 * threads
    turn = 0

    def some() -> list[np.ndarray]:
        nonlocal turn
        turn += batch
        return [videos[n % len(videos)] for n in range(turn - batch, turn)]

    pipeline = Pipeline(batch_size=batch, num_threads=threads, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        encoded = fn.external_source(source=some, dtype=DALIDataType.UINT8, ndim=1)
        pipeline.set_outputs(fn.decoders.video(encoded, device="cpu", affine=False))
    pipeline.build()
    pipeline.run()
    frames, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds or not frames:
        (clips,) = pipeline.run()
        frames += sum(shape[0] for shape in clips.shape())
    return frames / elapsed

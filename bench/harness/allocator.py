"""How much memory a function needs at its peak: of torch's allocator, or resident."""

import ctypes
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def cpu_peak(function: Callable[[], object]) -> int:
    """Largest number of bytes on the CPU above what there was before, as a GPU's allocator would count them.

    Scratch memory that libraries do not take from torch is not in it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        function()
    assert found.profiler is not None and found.profiler.kineto_results is not None
    events: list[Any] = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(live)


def gpu_peak(function: Callable[[], object]) -> int:
    """Bytes that were allocated on the GPU at most, what was there before included."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def resident_peak(function: Callable[[], object]) -> int:
    """Bytes that were resident at most above what was before, scratch memory of libraries included: the least of three.

    From here on the C library gives large blocks back at once. It would keep what compiling needed, which is more."""
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    function()
    found = []
    for _ in range(3):
        library.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # starts the kernel's high-water mark anew
        before = _status("VmRSS")
        function()
        found.append(_status("VmHWM") - before)
    return min(found) * 1024


_M_MMAP_THRESHOLD = -3  # malloc.h


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

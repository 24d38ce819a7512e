"""Times of calls on a GPU, apart from the time that the host takes to make them.

Two events around a call measure whichever is slower, host or device: the GPU waits between them for launches that the
host has not made yet. On a machine with an H200 the host takes 0.2 to 0.5 ms for a call of a custom op, and kernels
that need 0.14 to 0.22 ms read as up to 0.45. So here the GPU is kept busy until the host has made the call.
"""

import statistics
import time
from collections.abc import Callable

import torch

FLUSHED_BYTES = 256 * 2**20
"""Written before each call: more than any L2 cache holds."""
CYCLES_PER_MS = 2_000_000
"""Of the fastest clocks; a slower one only waits longer."""


def host_milliseconds(function: Callable[[], object], calls: int = 10) -> float:
    """Median time of the host in one call, ms, while the device has room in its queue."""
    times = []
    function()
    for _ in range(calls):
        _wait()
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    _wait()
    return statistics.median(times)


def device_milliseconds(function: Callable[[], object], budget: float) -> dict[str, float]:
    """p20, p50 and p80 of one call on the GPU, ms, with an empty L2 cache; the calls take about ``budget`` ms together.

    A call that waits for the device itself, as a copy of a list from the host does, still counts the host's time.
    """
    function()  # compiles
    host = host_milliseconds(function, calls=5)
    wait = 2 * host + 0.2
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    count = max(5, min(200, round(budget / wait)))
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
    for before, after in events:
        flushed.zero_()
        torch.cuda._sleep(round(wait * CYCLES_PER_MS))
        before.record()
        function()
        after.record()
    torch.cuda.synchronize()
    tenths = statistics.quantiles([before.elapsed_time(after) for before, after in events], n=10, method="inclusive")
    return dict(p20=tenths[1], p50=tenths[4], p80=tenths[7])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

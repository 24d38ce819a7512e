"""What torch's allocator hands out while something runs."""

import itertools
from collections.abc import Callable
from typing import Any

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

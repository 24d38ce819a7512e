"""How many threads read and decode by default, and how many cores a computation on the CPU leaves for them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def default_decode_threads(device: str | torch.device) -> int:
    """DALI threads of a pipeline where the configuration names none."""
    return 16 if torch.device(device).type == "cuda" else min(4, len(os.sched_getaffinity(0)))


def default_read_threads(device: str | torch.device) -> int:
    """Threads that read and check bytes where the configuration names none."""
    return 4 if torch.device(device).type == "cuda" else 1


@contextmanager
def leave_a_core_for_decoding(device: str | torch.device) -> Iterator[None]:
    """On a CPU, give torch all cores but one while inside; elsewhere do nothing.

    torch's threads wait for each other by spinning. With as many of them as cores next to a decoding thread, each waits
    for one that has no core: forward and backward of a small network (motion_cnn) took 3.6 times the CPU time with two
    threads on two busy cores.
    """
    if torch.device(device).type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, len(os.sched_getaffinity(0)) - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)

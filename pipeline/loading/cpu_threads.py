"""How many threads read and decode by default, and how many cores a computation on the CPU leaves for them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .loader_config import LoaderConfig


@dataclass(frozen=True)
class LoaderThreads:
    """Threads of one process's loader.

    Attributes:
        decode: DALI threads of each pipeline.
        pipelines: DALI pipelines.
        read: threads that read and check bytes.
    """

    decode: int
    pipelines: int
    read: int


def loader_threads(config: LoaderConfig, device: str | torch.device, batch: int) -> LoaderThreads:
    """What the configuration says, and the default for each number that it leaves at 0.

    Args:
        config: the loader's.
        device: where clips are decoded.
        batch: clips in this process's batch.
    """
    cores, ranks = len(os.sched_getaffinity(0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    default = default_threads(torch.device(device).type == "cuda", cores, ranks, batch)
    pipelines = config.pipelines or (default.pipelines if not config.decode_threads else 1)
    decode = config.decode_threads or (default.decode if pipelines == default.pipelines else -(-default.decode // 2))
    return LoaderThreads(decode, pipelines, config.read_threads or default.read)


def default_threads(gpu: bool, cores: int, ranks: int, batch: int) -> LoaderThreads:
    """Threads for a loader, by what it shares a machine with.

    On a GPU a decoding thread waits for NVDEC most of its time, so that a few more than the engines (7 on an H100) are
    enough; four cores of each process are left for its step, its reading threads and its loader. A pipeline works on
    one batch at a time and a clip occupies one thread: where a batch is smaller than the threads, two pipelines share
    them, so that a batch's slowest clip does not leave the others without work.

    Args:
        gpu: whether a GPU decodes.
        cores: of the machine, as far as this process may use them.
        ranks: processes of the run on this machine.
        batch: clips in a process's batch.
    """
    share = cores // ranks
    if not gpu:
        return LoaderThreads(max(1, min(4, share)), 1, 1)
    threads = max(4, min(12, share - 4))
    if batch < threads:
        return LoaderThreads(max(1, min(batch, -(-threads // 2))), 2, 4)
    return LoaderThreads(threads, 1, 4)


def default_core_threads(device: str | torch.device) -> int:
    """Threads that decode with libavcodec where the configuration names none."""
    cores = len(os.sched_getaffinity(0))
    if torch.device(device).type == "cpu":
        return min(4, cores)
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)  # one is left to the training loop


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

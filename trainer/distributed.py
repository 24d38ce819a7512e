"""One process or many: ranks, the process group, and agreement between them."""

import os
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ..pipeline.loading.cuda_waits import sleep_while_waiting
from ..pipeline.loading.device import resolve_device

TIMEOUT = timedelta(minutes=10)  # of any collective: a lost rank ends the others within it


@dataclass(frozen=True)
class Ranks:
    """Which process this is.

    Attributes:
        rank: 0 .. world_size - 1 over all machines.
        world_size: number of processes.
        device: the device of this process.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks to the terminal."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; every rank must ask. Waits for the other hosts, not for the device."""
        if self.world_size == 1:
            return flag
        value = torch.tensor([int(flag)])
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value.item())

    def add(self, *arrays: np.ndarray) -> None:
        """Add up float64 or int64 arrays over all ranks, in place; every rank must call it with the same shapes."""
        if self.world_size > 1:
            for array in arrays:
                dist.all_reduce(torch.from_numpy(array))


ALONE = Ranks(0, 1, torch.device("cpu"))


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, or be the only one.

    Args:
        device: "cuda" (one device a process, by LOCAL_RANK), "cpu", or "auto".

    Raises:
        InputError: CUDA was asked for, but there is none.
    """
    world_size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    device = resolve_device(device)
    own = torch.device(device)
    if device == "cuda":
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if not torch.cuda.is_initialized():
            sleep_while_waiting(own.index)
        torch.cuda.set_device(own)
    joined = False
    if "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ and not dist.is_initialized():
        # gloo as well as nccl: hosts agree on stopping without touching the devices
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        store, _, _ = next(rendezvous("env://", rank, world_size, timeout=TIMEOUT))
        # torchrun keeps one store over restarts, and a restarted process may find the dead one's address in it
        # (pytorch issue 135712; here 3 of 4 restarts failed to connect), so each group has keys of its own
        store = PrefixStore(agree_on_name(store, rank, world_size), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
        joined = True
    try:
        yield Ranks(rank, world_size, own)
    finally:
        if joined:
            dist.destroy_process_group()


def agree_on_name(store: dist.Store, rank: int, world_size: int, timeout: timedelta = TIMEOUT) -> str:
    """A name that all ranks of this group have, and that no group had before.

    A number of restarts would not do: where a lost machine was replaced, the new one's torchrun counts from 0 again.
    Rank 0 makes the name up and answers each rank's question. What processes that are dead now have asked and answered
    is in the store as well; so a question has a name of its own, and rank 0 goes on until all have said that they know.

    Args:
        store: that torchrun keeps.
        rank, world_size: of this process and its group.
        timeout: for ranks that do not come.

    Raises:
        TimeoutError: a rank did not come. torch.distributed.DistError: rank 0 did not, or the store is gone.
    """
    if rank:
        question = uuid.uuid4().hex
        store.set(f"question/{rank}", question)
        store.wait([f"answer/{question}"], timeout)
        name = store.get(f"answer/{question}").decode()
        store.set(f"known/{name}/{rank}", "")
        return name
    name, waiting, deadline = uuid.uuid4().hex, set(range(1, world_size)), time.monotonic() + timeout.total_seconds()
    while waiting:
        for other in sorted(waiting):
            if store.check([f"known/{name}/{other}"]):
                waiting.remove(other)
            elif store.check([f"question/{other}"]):
                store.set(f"answer/{store.get(f'question/{other}').decode()}", name)
        if waiting and time.monotonic() > deadline:
            raise TimeoutError(f"ranks {', '.join(map(str, sorted(waiting)))} of {world_size} did not come")
        time.sleep(0.02)
    return name


def wrap(loss_module: nn.Module, ranks: Ranks, *, all_in_last_pass: bool = True) -> nn.Module:
    """DistributedDataParallel around the loss module; the module itself when there is one process.

    The inner gradient is taken inside the wrapped forward, before any gradient hook, so only the final gradients are
    averaged: exact to rounding (tests/trainer/test_distributed.py).

    Args:
        loss_module: what is wrapped.
        ranks: this process.
        all_in_last_pass: whether a step's last backward reaches every parameter. Where it does not, the wrapper looks
            for those that it misses in every step, and averages what earlier backwards left in them.
    """
    if ranks.world_size == 1:  # also the plan of a step's memory, in one of several processes
        return loss_module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.15 renames broadcast_buffers; 2.11 knows no other name
        return DistributedDataParallel(
            loss_module,
            device_ids=[ranks.device] if ranks.device.type == "cuda" else None,
            # every step would begin with a broadcast; `average_buffers` aligns the ranks at each save instead
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=not all_in_last_pass,
        )


@torch.no_grad()
def average_buffers(module: nn.Module, ranks: Ranks) -> None:
    """Give all ranks the mean of their running statistics, so that a checkpoint stands for all of them."""
    if ranks.world_size == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= ranks.world_size

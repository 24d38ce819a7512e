"""``engine="ray"``: the same shard tasks, spread over the nodes of a Ray cluster that is already running.

A task makes one shard with one sandboxed worker on one core. Shards appear complete, so a node that dies costs the
shards it was working on, and Ray gives those to another node.
"""

import logging
from collections import Counter, deque
from pathlib import Path

from ..errors import InputError
from ..progress import Progress
from ..sandbox.process import Limits
from ..shards.writer import read_manifest
from .output import LocalOutput, open_output
from .plan import PlanHeader
from .shard_work import ShardTask, convert_shards, failure_note

RETRIES = 5  # after the death of a node or worker; a task that fails with an error of ours is not tried again
AHEAD = 4  # tasks in Ray's queue for every core: a plan's videos are sent with its task


def convert_shards_on_ray(
    header: PlanHeader, tasks: list[ShardTask], root: str | Path, output: LocalOutput, limits: Limits
) -> None:
    """Run ``tasks`` on the cluster and wait for all of them.

    Raises:
        InputError: Ray is not installed, no cluster is running, or a task cannot read the source or write the output.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError("engine ray: Ray is not installed; pip install 'unstill[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise InputError("engine ray: no Ray cluster is running here; start one with `ray start --head`") from error
    remote = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(_convert_one)
    waiting, running, reasons = deque(tasks), {}, Counter()
    with Progress("converting", sum(len(task.videos) for task in tasks), "videos") as progress:
        while waiting or running:
            room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1))) - len(running)
            for _ in range(min(room, len(waiting))):
                task = waiting.popleft()
                running[remote.remote(header, task, root, output.name, limits)] = task
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(done)
            try:
                reasons += ray.get(done)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, InputError):
                    raise error.cause from error
                raise
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"engine ray: shard {task.shard} failed on {RETRIES + 1} nodes ({type(error).__name__}); "
                    "look at the nodes' memory and disks, then run the same command again"
                ) from error
            progress.advance(len(task.videos), note=failure_note(reasons).removeprefix(", "))


def _convert_one(header: PlanHeader, task: ShardTask, root: str | Path, out: str, limits: Limits) -> Counter:
    """Runs on a node: make one shard; returns the number of quarantined videos by reason."""
    if isinstance(root, Path) and not root.is_dir():
        raise InputError(f"{root}: not on every node of the cluster; use a shared folder or an address")
    with open_output(out, resume=False) as output:
        convert_shards(header, [task], root, output, limits, workers=1)
        manifest = read_manifest(output.shards, task.shard) or {"failures": []}
        return Counter(failure["reason"] for failure in manifest["failures"])

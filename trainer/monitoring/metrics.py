"""Metrics: sums on the device, one line of ``metrics.jsonl`` per logged step, TensorBoard and W&B when asked for."""

import json
import logging
import math
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ...pipeline.atomic_files import write_atomic
from ...pipeline.errors import InputError

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"  # in a run's folder


class Meter:
    """Means of scalars since the last logged step, summed on the device: adding costs no synchronisation."""

    def __init__(self, device: torch.device, world_size: int = 1):
        self._device, self._world_size = device, world_size
        self._sums: dict[str, tuple[Tensor, int]] = {}  # comma-joined names -> (sums, steps)

    def add(self, terms: dict[str, Tensor]) -> None:
        """Count one step's scalars; a name that is missing in some steps is averaged over the others."""
        names, values = ",".join(terms), torch.stack([v.detach().to(torch.float64) for v in terms.values()])
        total, steps = self._sums.get(names, (0, 0))
        self._sums[names] = (total + values, steps + 1)

    def take(self) -> dict[str, float]:
        """The means, over all ranks; waits for the device, and starts anew."""
        totals: dict[str, list[float]] = {}
        for names, (values, steps) in self._sums.items():
            if self._world_size > 1:
                dist.all_reduce(values)
                values = values / self._world_size
            for name, value in zip(names.split(","), values.tolist(), strict=True):
                total = totals.setdefault(name, [0.0, 0])
                total[0] += value
                total[1] += steps
        self._sums = {}
        return {name: total / steps for name, (total, steps) in totals.items()}

    def share(self) -> None:
        """Give all ranks the same sums, so that a checkpoint of the first stands for all; every rank must call it."""
        if self._world_size > 1:
            for values, _ in self._sums.values():
                dist.all_reduce(values)
                values /= self._world_size

    def state_dict(self) -> dict:
        """What a checkpoint keeps, so that a resumed run logs the same means."""
        return {names: {"sums": values.clone(), "steps": steps} for names, (values, steps) in self._sums.items()}

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict()``."""
        self._sums = {names: (entry["sums"].to(self._device), entry["steps"]) for names, entry in state.items()}


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line. Numbers that are not finite are written as null.

    Args:
        path: the file.
        step: lines of later steps are dropped: a resumed run writes them again.
    """

    def __init__(self, path: Path, step: int = 0):
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # the last line of a run that was killed
                    continue
                if entry.get("step", 0) <= step:
                    kept.append(line + "\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(kept).encode())
        self._file = open(path, "a", buffering=1)

    def write(self, record: dict) -> None:
        """Append one record."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self._file.write(json.dumps(finite) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """TensorBoard events in ``folder``."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("log.tensorboard needs the package tensorboard; pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder))

    def write(self, record: dict) -> None:
        """Write every number of the record as a scalar."""
        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandB:
    """A Weights & Biases run named after the run folder; ``WANDB_PROJECT`` and its kin are honoured."""

    def __init__(self, folder: Path, config: dict):
        try:
            import wandb  # pyright: ignore[reportMissingImports]  (optional)
        except ImportError:
            raise InputError("log.wandb needs the package wandb; pip install wandb") from None
        os.environ.setdefault("WANDB_PROJECT", "unstill")
        self._run = wandb.init(dir=str(folder), name=folder.name, config=config, resume="allow", id=folder.name)

    def write(self, record: dict) -> None:
        """Log the record at its step."""
        self._run.log(record, step=record["step"])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Writers:
    """Everything that a record goes to. Only ``metrics.jsonl`` may stop a run; others that fail are dropped."""

    def __init__(self, file: MetricsFile, others: list):
        self._file, self._others = file, others

    def write(self, record: dict) -> None:
        """Write one record everywhere."""
        self._file.write(record)
        for writer in list(self._others):
            try:
                writer.write(record)
            except Exception as error:  # a dead logger must not end a week of training
                log.warning("%s failed (%s); going on without it", type(writer).__name__, error)
                self._others.remove(writer)

    def close(self) -> None:
        """Close everything."""
        self._file.close()
        for writer in self._others:
            try:
                writer.close()
            except Exception as error:
                log.warning("%s failed to close (%s)", type(writer).__name__, error)

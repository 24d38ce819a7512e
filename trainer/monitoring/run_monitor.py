"""Metrics, terminal display and warnings of a run."""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from ...pipeline.shards.dataset_info import DatasetInfo
from ..config import TrainConfig
from ..distributed import Ranks
from ..models.network import head_of
from ..state import TrainState
from .dashboard import Dashboard
from .flops import peak_flops, step_flops
from .symptoms import SymptomWatch

log = logging.getLogger(__name__)

T = TypeVar("T")


class RunMonitor:
    """Times the loop, and turns the state's sums into records, warnings and a dashboard.

    Args:
        config, data, steps, ranks: the run.
        writers: where records go; None on all ranks but the first.
        state: for the step to start from, and the parameters whose operations are counted.
        tables: what ``method.tables`` returned.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: DatasetInfo,
        steps: int,
        ranks: Ranks,
        writers,
        state: TrainState,
        tables: dict[str, Tensor],
    ):
        self._config, self._data, self._steps, self._writers = config, data, steps, writers
        self._symptoms = SymptomWatch(config.method.symptoms, len(data.classes))
        title = f"{config.model.name} {type(config.method).__name__.lower()}"
        if config.augmentation is not None:
            title += f" + {type(config.augmentation).__name__.lower()}"
        if config.replay:
            title += f" (MEASUREMENT, not a training: {config.replay} batches replayed)"
        self._dashboard = Dashboard(
            title,
            steps,
            config.method.shown_terms,
            done=state.step,
            steps_per_epoch=1 / config.epochs_at(1, data.samples),
            visible=ranks.first,
        )
        self._window_start, self._window_steps, self._waited = time.monotonic(), 0, 0.0
        self._flops_per_clip, self._peak = _mfu_terms(config, ranks, state, tables)

    def __enter__(self) -> "RunMonitor":
        self._dashboard.__enter__()
        return self

    def __exit__(self, *exception):
        self._dashboard.__exit__(*exception)
        if self._writers is not None:
            self._writers.close()

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; the time spent waiting for them is added up."""
        iterator = iter(batches)
        while True:
            begin = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - begin
            if batch is None:
                return
            yield batch
            self._window_steps += 1

    def due(self, step: int) -> bool:
        """Whether to log after this step."""
        self._dashboard.step(step)
        return step % self._config.log.every == 0 or step == self._steps

    def record(self, state: TrainState, lr: float) -> None:
        """Log the means since the last record; waits for the device."""
        means = state.meter.take()
        skipped = state.guard.check(self._steps if state.step == self._steps else None)
        now = time.monotonic()
        elapsed, steps = now - self._window_start, self._window_steps + 1
        record = {
            "step": state.step,
            "epoch": self._config.epochs_at(state.step, self._data.samples),
            "lr": lr,
            **means,
            **self._config.method.derived_terms(means, len(self._data.classes)),
            "skipped": skipped,
            "clips_per_s": steps * self._config.batch_size / elapsed,
            "data_wait": self._waited / elapsed,
        }
        if self._peak is not None:
            record["mfu"] = record["clips_per_s"] * self._flops_per_clip / self._peak
        if self._config.replay:
            record["replayed_batches"] = self._config.replay
        self._window_start, self._window_steps, self._waited = now, -1, 0.0
        if self._writers is not None:
            self._writers.write(record)
        self._dashboard.show(record)
        self._dashboard.warnings(self._symptoms.warnings(record))

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """While a checkpoint is scored: the display says so, and the time does not count as time of the steps."""
        began = time.monotonic()
        with self._dashboard.doing("validating"):
            yield
        self._window_start += time.monotonic() - began

    def scored(self, step: int, value: float) -> None:
        """Record a validation score."""
        if self._writers is not None:
            self._writers.write({"step": step, "validation": value})
        self._dashboard.scored(step, value)


def _mfu_terms(
    config: TrainConfig, ranks: Ranks, state: TrainState, tables: dict[str, Tensor]
) -> tuple[float, float | None]:
    """(operations a clip, what all devices could do in a second), or (0, None) where either is not known."""
    peak = peak_flops(torch.cuda.get_device_name(ranks.device)) if ranks.device.type == "cuda" else None
    if peak is None or config.step.precision != "bf16":
        return 0.0, None
    try:
        flops = step_flops(
            *(state.model, config.method, config.clip.frames, config.clip.size),
            head=head_of(state.model),
            method_module=state.method_module,
            tables=tables,
            second_share=0.0 if config.augmentation is None else config.augmentation.second_share,
        )
        return flops, peak * ranks.world_size
    except Exception as error:  # an operation without a meta form; the run does not need the number
        log.info("no MFU: the operations of %s cannot be counted (%s)", config.model.name, error)
        return 0.0, None

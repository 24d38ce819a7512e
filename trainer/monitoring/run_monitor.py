"""What a run says about itself: how fast it is, how it is doing, and what looks wrong."""

import logging
import math
import time
from collections.abc import Iterator

import torch

from ...pipeline.loading.loader import Clips
from ...pipeline.shards.dataset_info import DatasetInfo
from ..config import TrainConfig
from ..distributed import Ranks
from ..state import TrainState
from .collapse import CollapseWatch
from .dashboard import Dashboard
from .flops import peak_flops, step_flops

log = logging.getLogger(__name__)


class RunMonitor:
    """Times the loop, and turns the state's sums into records, warnings and a dashboard.

    Args:
        config, data, steps, ranks: the run.
        writers: where records go; None on all ranks but the first.
        state: for the step to start from.
    """

    def __init__(self, config: TrainConfig, data: DatasetInfo, steps: int, ranks: Ranks, writers, state: TrainState):
        self._config, self._data, self._steps, self._writers = config, data, steps, writers
        self._collapse = CollapseWatch(len(data.classes))
        title = f"{config.model.name} {type(config.method).__name__.lower()}"
        if config.augmentation is not None:
            title += f" + {type(config.augmentation).__name__.lower()}"
        if config.replay:
            title += f" (MEASUREMENT, not a training: {config.replay} batches replayed)"
        self._dashboard = Dashboard(title, steps, state.step, visible=ranks.first)
        self._window_start, self._window_steps, self._waited = time.monotonic(), 0, 0.0
        self._flops_per_clip, self._peak = _mfu_terms(config, ranks, state)

    def __enter__(self) -> "RunMonitor":
        self._dashboard.__enter__()
        return self

    def __exit__(self, *exception):
        self._dashboard.__exit__(*exception)
        if self._writers is not None:
            self._writers.close()

    def timed(self, batches, ahead: bool) -> Iterator[tuple[Clips, Clips | None]]:
        """The batches, each with the following one if ``ahead`` is set; the time spent waiting for them is added up."""
        iterator = iter(batches)

        def wait() -> Clips | None:
            begin = time.monotonic()
            clips = next(iterator, None)
            self._waited += time.monotonic() - begin
            return clips

        clips = wait()
        while clips is not None:
            following = wait() if ahead else None
            yield clips, following
            self._window_steps += 1
            clips = following if ahead else wait()

    def due(self, step: int) -> bool:
        """Whether to log after this step."""
        self._dashboard.step(step)
        return step % self._config.log.every == 0 or step == self._steps

    def record(self, state: TrainState, lr: float) -> None:
        """Log the means since the last record; waits for the device."""
        means, skipped = state.meter.take(), state.guard.check()
        now = time.monotonic()
        elapsed, steps = now - self._window_start, self._window_steps + 1
        record = {
            "step": state.step,
            "epoch": state.step * self._config.batch_size / self._data.samples,
            "lr": lr,
            **means,
        }
        if "static_entropy" in means:
            record["static_entropy_share"] = means["static_entropy"] / math.log(len(self._data.classes))
        record |= {
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
        for warning in self._collapse.look(record):
            self._dashboard.warn(warning)

    def scored(self, step: int, value: float) -> None:
        """Record a validation score."""
        if self._writers is not None:
            self._writers.write({"step": step, "validation": value})
        self._dashboard.scored(value)


def _mfu_terms(config: TrainConfig, ranks: Ranks, state: TrainState) -> tuple[float, float | None]:
    """(operations a clip, what all devices could do in a second), or (0, None) where either is not known."""
    peak = peak_flops(torch.cuda.get_device_name(ranks.device)) if ranks.device.type == "cuda" else None
    if peak is None or config.step.precision != "bf16":
        return 0.0, None
    try:
        return step_flops(state.model, config.method, config.clip.frames, config.clip.size), peak * ranks.world_size
    except Exception as error:  # an operation without a meta form; the run does not need the number
        log.info("no MFU: the operations of %s cannot be counted (%s)", config.model.name, error)
        return 0.0, None

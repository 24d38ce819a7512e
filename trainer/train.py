"""The training loop: ``train(config)``.

    check -> build -> resume -> [clips -> step -> log? -> save? -> score? -> stop?]* -> save -> score

A step that is not logged never waits for the device. What the loop waits for is in ``metrics.jsonl``: ``data_wait`` is
the share of the time that the loader was not ready.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from ..pipeline.atomic_files import write_atomic
from ..pipeline.errors import InputError
from ..pipeline.loading.clips import Clips
from ..pipeline.loading.cpu_threads import leave_a_core_for_decoding
from ..pipeline.loading.device import resolve_device
from ..pipeline.shards.dataset_info import DatasetInfo
from .build import build, count_steps, open_loader, with_network_facts
from .checkpoints.checkpoint import CONFIG, Checkpointer, run_record
from .checkpoints.preemption import Preempted, StopRequest
from .config import TrainConfig, to_dict
from .distributed import Ranks, process_group
from .known_failures import double_backward_errors
from .memory_check import check_memory, memory_errors
from .monitoring.metrics import METRICS, MetricsFile, TensorBoard, WandB, Writers
from .monitoring.run_monitor import RunMonitor
from .monitoring.start import say_what_is_trained
from .state import TrainState
from .step import TrainStep
from .validation import Scoring, Validator

log = logging.getLogger(__name__)

STOP_CHECK_EVERY = 8  # steps between the ranks' agreements on stopping: each one makes the hosts wait for each other


@dataclass(frozen=True)
class TrainResult:
    """What ``train`` leaves behind.

    Attributes:
        checkpoint: the final checkpoint.
        metrics: metrics.jsonl.
        seconds: wall clock of this call.
        steps: steps of the run, those of earlier calls included.
    """

    checkpoint: Path
    metrics: Path
    seconds: float
    steps: int


def train(
    config: TrainConfig,
    *,
    make_loader: Callable[..., AbstractContextManager[Iterable[Clips]]] | None = None,
    validate: Callable[[nn.Module, int], float] | None = None,
) -> TrainResult:
    """Train, or continue, the run in ``config.out``.

    Args:
        config: everything; see the recipes.
        make_loader: replaces ``open_loader``: called with (config, ranks, start_step, steps), returns a context manager
            that iterates over ``Clips``.
        validate: called with (network, step) after every checkpoint, returns a score; ``best`` follows the highest. By
            default top-1 on ``config.validation``, if there is one.

    Raises:
        InputError: something the user can correct. Preempted: Ctrl-C, SIGTERM, SIGUSR1 or SIGHUP came; the run is saved
            (exit code 75). KeyboardInterrupt: Ctrl-C came again, or before there was anything to save; its message says
            what is lost.
    """
    start = time.monotonic()
    config = replace(config, device=resolve_device(config.device))
    with process_group(config.device) as ranks, StopRequest() as stop, leave_a_core_for_decoding(config.device):
        data = DatasetInfo.read(config.data)
        config = with_network_facts(config, len(data.classes))
        steps = count_steps(config, data, ranks)
        videos = None
        if validate is None and config.validation is not None:
            validate = Validator(config, data.classes, ranks, checkpoints(config, steps), lambda: stop.requested)
            videos = validate.check()
        state, step = build(config, data, ranks, steps)
        saver = Checkpointer(config, data, ranks)
        try:
            resumed = saver.resume(state, steps)
            if ranks.first:
                say_what_is_trained(config, data, state, steps, ranks, videos)
            check_memory(config, state, step, len(data.classes), ranks)
            writers = start_run(config, data, ranks, state.step) if ranks.first else None
            saver.sweep()
            monitor = RunMonitor(config, data, steps, ranks, writers, state, step.tables)
            scoring = None if validate is None else Scoring(state, validate, saver, config.out / METRICS)
            loader = (make_loader or open_loader)(config, ranks, state.step, steps - state.step)
            if ranks.first:
                record_decoder(config, loader)
            loop = Loop(config, state, step, steps, saver, scoring, monitor, stop, ranks)
            with monitor, loader as batches:
                if resumed:
                    loop.score_what_was_saved()
                loop.run(batches)
            if state.step < steps:
                raise InputError(f"{config.data}: the loader ended after step {state.step} of {steps}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(aborted(saver, state.step)) from None
        finally:
            saver.close()
        return TrainResult(saver.path(steps), config.out / METRICS, time.monotonic() - start, steps)


@dataclass(frozen=True)
class Loop:
    """The loop over the steps that are left; ``state.step`` counts them.

    Attributes:
        config: the run's.
        state: what the steps change and the saver saves.
        step: takes one.
        steps: length of the run.
        saver: of checkpoints.
        scoring: scores them, or None.
        monitor: records metrics.
        stop: whether a signal came.
        ranks: all of them take the same decisions.
    """

    config: TrainConfig
    state: TrainState
    step: TrainStep
    steps: int
    saver: Checkpointer
    scoring: Scoring | None
    monitor: RunMonitor
    stop: StopRequest
    ranks: Ranks

    def run(self, batches: Iterable[Clips]) -> None:
        """Take a step on every batch.

        Raises:
            Preempted: a signal came, or ``stop_after`` was reached; the run is saved.
        """
        for batch in self.monitor.timed(self.step.inputs(batches)):
            with double_backward_errors(self.config.model.name), memory_errors(self.config, self.ranks.world_size):
                self.step(batch)
            self.stop.worth_saving = True
            self._after_step()

    def score_what_was_saved(self) -> None:
        """Score the checkpoint that the run continues from, where the run was stopped before that."""
        at_checkpoint = self.saver.due(self.state.step) or self.state.step == self.steps
        if self.scoring is not None and at_checkpoint and self.ranks.any(self.scoring.missing):
            self.scoring(self.monitor)

    def _after_step(self) -> None:
        """Record, save, score, stop, each where it is due."""
        now, last = self.state.step, self.state.step == self.steps
        if self.monitor.due(now):
            self.monitor.record(self.state, self.step.learning_rate(now - 1))
        stopping = not last and should_stop(self.config, self.stop, self.ranks, now)
        due = last or self.saver.due(now)
        if due or stopping:
            self.saver.save(self.state, wait=stopping or last)
            self.stop.worth_saving = False
        if self.scoring is not None and due and not stopping:  # after the save: no score is worth a checkpoint
            self.scoring(self.monitor)
            stopping = not last and self.ranks.any(self.stop.requested)
        if stopping:
            self.saver.finish()
            raise Preempted(now)


def checkpoints(config: TrainConfig, steps: int) -> int:
    """How many checkpoints a run of so many steps saves."""
    every = config.checkpoint.every
    return -(-steps // every) if every else 1


def aborted(saver: Checkpointer, step: int) -> str:
    """What a run that was aborted has lost."""
    newest = saver.newest()
    if newest is None:
        return f"nothing was saved of the {step} steps" if step else "before the first step; nothing is lost"
    lost = f"the {step - newest} steps since then are lost" if step > newest else "nothing is lost"
    return f"the newest checkpoint is that of step {newest}, {lost}; the same command continues from it"


def start_run(config: TrainConfig, data: DatasetInfo, ranks: Ranks, step: int) -> Writers:
    """Write config.json before the first step, and open what records go to."""
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / CONFIG).write_text(json.dumps(run_record(config, data), indent=1))
        others = []
        if config.log.tensorboard:
            others.append(TensorBoard(config.out / "tensorboard"))
        if config.log.wandb:
            others.append(WandB(config.out, to_dict(config)))
        return Writers(MetricsFile(config.out / METRICS, step), others)
    except OSError as error:
        raise InputError(f"{config.out}: cannot write the run there ({error.strerror}); choose another --out") from None


def record_decoder(config: TrainConfig, loader: object) -> None:
    """Add to config.json what decodes the clips, where the loader says it."""
    choice = getattr(loader, "decoder", None)
    if choice is None:
        return
    record = json.loads((config.out / CONFIG).read_text())
    record["environment"]["decoder"] = {"name": choice.name, "reason": choice.reason}
    write_atomic(config.out / CONFIG, json.dumps(record, indent=1).encode())


def should_stop(config: TrainConfig, stop: StopRequest, ranks: Ranks, step: int) -> bool:
    """Whether all ranks stop after this step."""
    if config.stop_after is not None and step >= config.stop_after:
        return True
    if ranks.world_size > 1 and step % STOP_CHECK_EVERY:
        return False
    return ranks.any(stop.requested)

"""The training loop: ``train(config)``.

    build -> resume -> [clips -> update -> log? -> save? -> stop?]* -> save

A step that is not logged never waits for the device. What the loop waits for is in ``metrics.jsonl``: ``data_wait`` is
the share of the time that the loader was not ready.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..pipeline.errors import InputError
from ..pipeline.loading.cpu_threads import leave_a_core_for_decoding
from ..pipeline.loading.loader import ClipLoader
from ..pipeline.loading.replay import ReplayLoader
from ..pipeline.shards.dataset_info import DatasetInfo
from .checkpoints.checkpoint import CONFIG, Checkpointer, run_record
from .checkpoints.preemption import Preempted, StopRequest
from .config import TrainConfig, to_dict
from .distributed import Ranks, process_group, wrap
from .known_failures import refuse_unsupported
from .loss_module import LossModule, compile_loss, translate
from .models.closed_conv import close_convolutions
from .models.position_bias import look_up_position_biases
from .models.registry import build_model, head_name
from .monitoring.metrics import Meter, MetricsFile, TensorBoard, WandB, Writers
from .monitoring.run_monitor import RunMonitor
from .optimisers.ema import WeightAverage
from .optimisers.factory import make_optimiser, parameter_groups
from .optimisers.nonfinite import NonFiniteGuard
from .state import TrainState
from .step import Prepare, Update, clip_options
from .validation import Validator, score

log = logging.getLogger(__name__)

STOP_CHECK_EVERY = 8  # steps between the ranks' agreements on stopping: each one makes the hosts wait for each other


@dataclass(frozen=True)
class TrainResult:
    """What ``train`` leaves behind.

    Attributes:
        checkpoint: the final checkpoint.
        metrics: metrics.jsonl.
        seconds: wall clock of this call.
        steps: steps of the whole run.
    """

    checkpoint: Path
    metrics: Path
    seconds: float
    steps: int


def train(
    config: TrainConfig,
    *,
    make_loader: Callable[..., object] | None = None,
    validate: Callable[[nn.Module, int], float] | None = None,
) -> TrainResult:
    """Train, or continue, the run in ``config.out``.

    Args:
        config: everything; see the recipes.
        make_loader: replaces ``open_loader``: called with (config, ranks, start_step, steps), returns a context manager
            that iterates over ``Clips``.
        validate: called with (network, step) at every checkpoint, returns a score; ``best`` follows the highest. By
            default top-1 on ``config.validation``, if there is one.

    Raises:
        InputError: something the user can mend. Preempted: SIGTERM or SIGUSR1 came; the run is saved (exit code 75).
    """
    start = time.monotonic()
    with process_group(config.device) as ranks, StopRequest() as stop, leave_a_core_for_decoding(config.device):
        data = DatasetInfo.read(config.data)
        steps = count_steps(config, data, ranks)
        state, update = build(config, data, ranks, steps)
        saver = Checkpointer(config, data, ranks)
        if validate is None and config.validation is not None:
            validate = Validator(config, data.classes)
        try:
            if saver.resume(state):
                log.info("%s: continuing at step %d of %d", config.out, state.step, steps)
            writers = start_run(config, data, ranks, state.step) if ranks.first else None
            saver.sweep()
            watch = RunMonitor(config, data, steps, ranks, writers, state)
            loader = (make_loader or open_loader)(config, ranks, state.step, steps - state.step)
            with watch, loader as batches:
                for clips, following in watch.timed(batches, ahead=config.step.fused_boundary):
                    with explained(config):
                        update(clips, following)
                    if watch.due(state.step):
                        watch.record(state, update.learning_rate(state.step - 1))
                    stopping = state.step < steps and should_stop(config, stop, ranks, state.step)
                    if saver.due(state.step) or stopping or state.step == steps:
                        best = False
                        if validate is not None:
                            value, best = score(state, validate)
                            watch.scored(state.step, value)
                        saver.save(state, wait=stopping or state.step == steps, best=best)
                    if stopping:
                        raise Preempted(state.step)
            if state.step < steps:
                raise InputError(f"{config.data}: the loader ended after step {state.step} of {steps}")
        finally:
            saver.close()
        return TrainResult(saver.path(steps), config.out / "metrics.jsonl", time.monotonic() - start, steps)


def build(config: TrainConfig, data: DatasetInfo, ranks: Ranks, steps: int) -> tuple[TrainState, Update]:
    """The network, its optimiser, and the step that joins them; nothing is read from the run folder.

    Raises:
        InputError: a combination that is known to train wrongly.
    """
    if config.step.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses matrix products
    torch.use_deterministic_algorithms(config.step.deterministic)
    torch.backends.cudnn.benchmark = not config.step.deterministic  # shapes never change within a run
    torch.manual_seed(config.seed)  # every rank starts from the same weights
    model = build_model(
        config.model.name, len(data.classes), config.model.weights, frames=config.clip.frames, size=config.clip.size
    )
    refuse_unsupported(model, config.method, config.model.name)
    look_up_position_biases(model)
    if config.step.closed_conv:
        close_convolutions(model)
    tables, head = config.method.tables(config.data), head_name(config.model.name)
    extra = config.method.module(model, head, tables)
    model, extra = (
        None
        if module is None
        else module.to(
            device=ranks.device,
            dtype=torch.float64 if config.step.precision == "fp64" else None,
            memory_format=torch.channels_last_3d if config.step.channels_last else torch.preserve_format,
        ).train()
        for module in (model, extra)
    )
    groups = parameter_groups(model, head, config.optimiser)
    if extra is not None:
        groups += parameter_groups(extra, "head", config.optimiser)
    state = TrainState(
        model=model,
        optimiser=make_optimiser(config.optimiser, groups),
        guard=NonFiniteGuard(
            nn.ModuleList([model] if extra is None else [model, extra]),
            ranks.device,
            config.max_skipped,
            ranks.world_size,
        ),
        meter=Meter(ranks.device, ranks.world_size),
        average=WeightAverage(model, config.step.ema) if config.step.ema else None,
        extra=extra,
    )
    autocast = torch.bfloat16 if config.step.precision == "bf16" else None
    loss = LossModule(model, config.method, autocast, clip_options(config), head=head, extra=extra)
    # before wrapping: the gradient hooks stay outside of the graphs
    compile_loss(loss, config.step.compile, config.step.recompute)
    tables = {name: table.to(ranks.device) for name, table in tables.items()}
    return state, Update(config, state, wrap(loss, ranks), steps, ranks.rank, len(data.classes), tables)


def open_loader(config: TrainConfig, ranks: Ranks, start_step: int, steps: int) -> ClipLoader:
    """The loader of this rank's clips, which prepares them ahead."""
    kind = ClipLoader
    if config.replay:
        kind = partial(ReplayLoader, replay=config.replay)
        if ranks.first:
            log.warning(
                "%s: NOT A TRAINING but a measurement: the same %d batches are trained on over and over (--replay)",
                config.out,
                config.replay,
            )
    return kind(
        config.data,
        clip=config.clip,
        batch_size=config.batch_size,
        augment=config.augment,
        device=ranks.device,
        seed=config.seed,
        start_step=start_step,
        steps=steps,
        rank=ranks.rank,
        world_size=ranks.world_size,
        config=config.loader,
        bad_clips=config.out / "bad_clips.csv",
        prepare=None if config.step.fused_boundary else Prepare(config),
    )


def count_steps(config: TrainConfig, data: DatasetInfo, ranks: Ranks) -> int:
    """Steps of the whole run; epochs follow each other without a gap, so only the last may lack a part of a batch."""
    parts = ranks.world_size * config.step.accumulate
    if config.batch_size % parts:
        raise InputError(
            f"batch_size {config.batch_size} does not divide into {ranks.world_size} processes x "
            f"{config.step.accumulate} parts (step.accumulate); choose a multiple of {parts}"
        )
    steps = int(config.epochs * data.samples) // config.batch_size
    if steps < 1:
        raise InputError(
            f"{config.epochs:g} epochs of {data.samples} videos are less than one batch of {config.batch_size}; "
            "lower --batch-size or raise --epochs"
        )
    return steps


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
        return Writers(MetricsFile(config.out / "metrics.jsonl", step), others)
    except OSError as error:
        raise InputError(f"{config.out}: cannot write the run there ({error.strerror}); choose another --out") from None


def should_stop(config: TrainConfig, stop: StopRequest, ranks: Ranks, step: int) -> bool:
    """Whether all ranks stop after this step."""
    if config.stop_after is not None and step >= config.stop_after:
        return True
    if ranks.world_size > 1 and step % STOP_CHECK_EVERY:
        return False
    return ranks.any(stop.requested)


class explained:
    """Turns a failure to differentiate twice into a line that names the operation and the way out."""

    def __init__(self, config: TrainConfig):
        self._config = config

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, RuntimeError) and (known := translate(error, self._config.model.name)):
            raise known from error

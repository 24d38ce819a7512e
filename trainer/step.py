"""One training step: clips -> loss -> gradient -> guarded update. Nothing in it waits for the device.

Two exceptions: apex's optimisers in every step, SGD with dampening in the first of a process.
"""

import hashlib
from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..pipeline.loading.clips import Clips
from .augmentations.base import Context
from .batch import DRAWS, Batch, upload
from .config import TrainConfig
from .inputs.prepare import Prepare
from .models.clip_view import set_progress, steady_batch
from .models.sample_dropout import draw_per_sample
from .optimisers.batch_rule import base_rate
from .optimisers.factory import set_learning_rate
from .optimisers.schedule import multiplier
from .passes import Pass, backward_in_passes, pass_inputs, step_passes
from .state import TrainState
from .step_config import GRAPH_MODES


class TrainStep:
    """Runs steps on a state.

    Args:
        config: the run's.
        state: is advanced by one step per call.
        loss_module: compiled and wrapped as wanted.
        steps: length of the run, for the schedule.
        rank: of this process; each rank draws its own dropout.
        classes: number of classes.
        tables: what ``method.tables`` returned, on the device.
        static_parts: parts that the static clips' pass is computed in.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainState,
        loss_module: nn.Module,
        steps: int,
        rank: int = 0,
        classes: int = 0,
        tables: dict[str, Tensor] | None = None,
        static_parts: int = 1,
    ):
        self._config, self._state, self._loss_module = config, state, loss_module
        self._steps, self._rank, self.tables = steps, rank, tables or {}
        self._rate, self._schedule = base_rate(config.optimiser, config.batch_size), config.schedule.over(config.epochs)
        self.take_static_parts(static_parts)
        self._prepare = Prepare(config)
        self._parameters = [p for p in state.trained.parameters() if p.requires_grad]
        self._context = Context(
            *(classes, config.inputs.mean, config.inputs.std),
            compile=config.step.compile != "off",
            announce=rank == 0,
        )
        self._replays_graphs = config.step.compile in GRAPH_MODES and config.device == "cuda"

    def take_static_parts(self, parts: int) -> None:
        """Compute the static clips' pass in parts; before the first step.

        Args:
            parts: above 1 the network's random layers draw by sample, see ``models.sample_dropout``.
        """
        self.static_parts = parts
        if parts > 1:
            loss_module: Any = getattr(self._loss_module, "module", self._loss_module)  # of DistributedDataParallel
            loss_module.static_draws = draw_per_sample(self._state.model)

    def inputs(self, batches: Iterable[Clips]) -> Iterable[Any]:
        """What the step is called with, one after another: the batches."""
        return batches

    def __call__(self, clips: Clips) -> None:
        """One step on this rank's part of the global batch."""
        config, state = self._config, self._state
        step, parts = state.step, config.step.accumulate
        # dropout and augmentations are functions of (seed, step, rank) as well: there is no random state to save
        torch.manual_seed(_fold(config.seed, step, self._rank))
        head_alone = step < config.optimiser.head_first * self._steps
        set_learning_rate(state.optimiser, self.learning_rate(step), head_alone=head_alone)
        set_progress(state.model, step / self._steps)
        state.guard.before()
        batch = self._batch(clips)
        penalise = config.method.penalises(step)
        losses = []
        for part in range(parts):
            rows = slice(part * len(clips) // parts, (part + 1) * len(clips) // parts)
            some = batch.select(rows) if parts > 1 else batch
            losses.append(self._forward_backward(some, penalise, last=part + 1 == parts))
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if config.step.clip_grad:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, config.step.clip_grad, norm)
        state.guard.update(state.optimiser, state.guard.judge(reduce(add, losses), norm))
        state.optimiser.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.update()
        state.meter.add({"grad_norm": norm})
        state.step = step + 1

    def learning_rate(self, step: int) -> float:
        """The base learning rate in a step."""
        return self._rate * multiplier(self._schedule, step, self._steps)

    def _clips(self, clips: Clips) -> tuple[Tensor, Tensor | None]:
        return clips.prepared or self._prepare(clips)

    def _batch(self, clips: Clips) -> Batch:
        motion, static = self._clips(clips)
        motion, found = steady_batch(motion, self._config.model.view)
        per_sample = clips.per_sample | found | {name: table[clips.sample] for name, table in self.tables.items()}
        if self.static_parts > 1:
            keys = [_fold(self._config.seed, self._state.step, self._rank, row) for row in range(len(clips))]
            per_sample[DRAWS] = upload(np.array(keys, np.int64), motion.device)
        batch = Batch(motion, static, clips.label, clips.static_index, per_sample)
        if self._config.augmentation is None:
            return batch
        rng = np.random.default_rng(_fold(self._config.seed, self._state.step, self._rank))
        return self._config.augmentation(batch, rng, self._context)

    def _forward_backward(self, batch: Batch, penalise: bool, last: bool) -> Tensor:
        if self._replays_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        config = self._config
        passes = step_passes(
            *(config.method, len(batch), penalise),
            static_parts=self.static_parts,
            last=last,
            second_share=batch.second_share,
        )
        loss, terms = backward_in_passes(
            *(self._loss_module, batch, passes),
            scale=1 / config.step.accumulate,
            forward=self._forward,
            parameters=self._parameters,
        )
        self._state.meter.add({"loss": loss, **terms})
        return loss / config.step.accumulate

    def _forward(self, batch: Batch, step_pass: Pass) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss_module(*pass_inputs(batch, step_pass))


def _fold(*numbers: int) -> int:
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

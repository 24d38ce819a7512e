"""One training step: clips -> loss -> gradient -> guarded update. Nothing in it waits for the device."""

import hashlib
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels import clip_prep
from ..pipeline.errors import InputError
from ..pipeline.loading.loader import Clips
from .augmentations.base import Context
from .batch import Batch
from .config import TrainConfig
from .inputs.people import PeopleMasks
from .loss_module import GRAPH_MODES, Upcoming, static_leaf
from .optimisers.factory import set_learning_rate
from .optimisers.schedule import multiplier
from .state import TrainState


def clip_options(config: TrainConfig) -> dict[str, Any]:
    """How the run's clips are made: options of ``kernels.clip_prep``."""
    return {
        "mean": config.inputs.mean,
        "std": config.inputs.std,
        # float32 under autocast, too: the penalty differentiates by the static clip, and its norm is a float32 one
        "dtype": torch.float64 if config.step.precision == "fp64" else torch.float32,
        "layout": "channels_last_3d" if config.step.channels_last else "ncdhw",
        "static": config.method.static,
    }


class Prepare:
    """uint8 frames -> normalised motion clip and static clip; the loader runs it ahead, on its own stream.

    Args:
        config: ``inputs``, ``step``, ``method`` and ``augmentation`` are read.
    """

    def __init__(self, config: TrainConfig):
        self._transform, self._options = config.inputs.transform, clip_options(config)
        self._people = None
        if config.method.needs_people or (config.augmentation is not None and config.augmentation.needs_people):
            if config.inputs.people is None:
                raise InputError("this method needs to know where people are; give a file of boxes: --people")
            self._people = PeopleMasks(config.inputs.people, config.data, config.clip, self._transform)

    def __call__(self, clips: Clips) -> tuple[Tensor, Tensor | None]:
        """(motion (B,3,T,h,w), static of the same shape or None)."""
        frames, flip, static_index = self.upcoming(clips)
        self.find_people(clips)
        return clip_prep(frames, flip=flip, t_idx=static_index, **self._options)

    def find_people(self, clips: Clips) -> None:
        """Put the masks of people into ``clips.side``, where the run wants them."""
        if self._people is not None and "people" not in clips.side:
            clips.side["people"] = self._people(clips)

    def upcoming(self, clips: Clips) -> Upcoming:
        """The augmented frames and what else the clips are made from."""
        frames = clips.frames if self._transform is None else self._transform(clips.frames, clips.draws)
        return Upcoming(frames, clips.flip, clips.static_index)


class Update:
    """Runs steps on a state.

    Args:
        config: the run's.
        state: is advanced by one step per call.
        loss: the loss module, compiled and wrapped as wanted.
        steps: length of the whole run, for the schedule.
        rank: of this process; each rank draws its own dropout.
        classes: number of classes.
        tables: what ``method.tables`` returned, on the device.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainState,
        loss: nn.Module,
        steps: int,
        rank: int = 0,
        classes: int = 0,
        tables: dict[str, Tensor] | None = None,
    ):
        self._config, self._state, self._loss, self._steps, self._rank = config, state, loss, steps, rank
        self._prepare = Prepare(config)
        self._parameters = [p for p in state.trained.parameters() if p.requires_grad]
        self._context, self._tables = Context(classes, config.inputs.mean, config.inputs.std), tables or {}
        self._replays_graphs = config.step.compile in GRAPH_MODES and config.device == "cuda"
        self._made: tuple[Tensor, Tensor | None] | None = None  # this step's clips, made by the last one's boundary

    def __call__(self, clips: Clips, following: Clips | None = None) -> None:
        """One step.

        Args:
            clips: this rank's part of the global batch.
            following: the next step's, for the fused boundary; None in the last step.
        """
        config, state = self._config, self._state
        step, parts = state.step, config.step.accumulate
        # dropout and augmentations are functions of (seed, step, rank) as well: there is no random state to save
        torch.manual_seed(_fold(config.seed, step, self._rank))
        head_alone = step < config.optimiser.head_first * self._steps
        set_learning_rate(state.optimiser, self.learning_rate(step), head_alone=head_alone)
        state.guard.before()
        batch = self._batch(clips, *(self._made or clips.prepared or self._prepare(clips)))
        upcoming = None
        if config.step.fused_boundary:
            # the last step makes clips that nobody needs: a step without would be another graph to compile
            upcoming = self._prepare.upcoming(clips if following is None else following)
        penalise = config.method.penalises(step)
        total = 0.0
        for part in range(parts):
            some = (
                batch.rows(slice(part * len(clips) // parts, (part + 1) * len(clips) // parts)) if parts > 1 else batch
            )
            last = part + 1 == parts
            inputs = (some.motion, static_leaf(some.static, penalise), some.target, penalise)
            total = total + self._forward_backward((*inputs, upcoming if last else None, some.side), parts, last)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if config.step.clip_grad:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, config.step.clip_grad, norm)
        state.guard.update(state.optimiser, state.guard.judge(total, norm))
        state.optimiser.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.update()
        state.meter.add({"grad_norm": norm})
        state.step = step + 1

    def learning_rate(self, step: int) -> float:
        """The base learning rate in a step."""
        return self._config.optimiser.lr * multiplier(self._config.schedule, step, self._steps)

    def _batch(self, clips: Clips, motion: Tensor, static: Tensor | None) -> Batch:
        self._prepare.find_people(clips)  # with a fused boundary nobody has yet
        side = clips.side | {name: table[clips.sample] for name, table in self._tables.items()}
        batch = Batch(motion, static, clips.label, clips.static_index, side)
        if self._config.augmentation is None:
            return batch
        rng = np.random.default_rng(_fold(self._config.seed, self._state.step, self._rank))
        return self._config.augmentation(batch, rng, self._context)

    def _forward_backward(self, batch: tuple, parts: int, last: bool) -> Tensor:
        if self._replays_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        # under DDP gradients travel once a step
        with nullcontext() if last else getattr(self._loss, "no_sync", nullcontext)():
            loss, terms, clips = self._loss(*batch)
            (loss / parts if parts > 1 else loss).backward()
        self._state.meter.add({"loss": loss, **terms})
        if clips is not None and self._replays_graphs:  # the next replay overwrites its outputs
            clips = tuple(None if clip is None else clip.clone() for clip in clips)
        self._made = clips
        return loss.detach() / parts


def _fold(*numbers: int) -> int:
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

"""One training step: clips -> loss -> gradient -> guarded update. Nothing in it waits for the device."""

import hashlib

import torch
from torch import Tensor, nn

from ..kernels import clip_prep
from ..pipeline.loader import Clips
from .config import TrainConfig
from .optim import set_learning_rate
from .schedule import multiplier
from .step import static_leaf
from .torus_roll import torus_roll
from .train_state import TrainState


class Prepare:
    """uint8 frames -> normalised motion clip and static clip; the loader runs it ahead, on its own stream.

    Args:
        config: ``torus_roll``, ``mean``, ``std``, ``step`` and ``method.static`` are read.
    """

    def __init__(self, config: TrainConfig):
        self._roll = config.torus_roll
        self._options = {
            "mean": config.mean,
            "std": config.std,
            # float32 under autocast, too: the penalty differentiates by the static clip, and its norm is a float32 one
            "dtype": torch.float64 if config.step.precision == "fp64" else torch.float32,
            "layout": "channels_last_3d" if config.step.channels_last else "ncdhw",
            "static": config.method.static,
        }

    def __call__(self, clips: Clips) -> tuple[Tensor, Tensor | None]:
        """(motion (B,3,T,h,w), static of the same shape or None)."""
        frames = torus_roll(clips.frames, clips.draws) if self._roll else clips.frames
        return clip_prep(frames, flip=clips.flip, t_idx=clips.static_index, **self._options)


class Update:
    """Runs steps on a state.

    Args:
        config: the run's.
        state: is advanced by one step per call.
        loss: the loss module, compiled and wrapped as wanted.
        steps: length of the whole run, for the schedule.
        rank: of this process; each rank draws its own dropout.
    """

    def __init__(self, config: TrainConfig, state: TrainState, loss: nn.Module, steps: int, rank: int = 0):
        self._config, self._state, self._loss, self._steps, self._rank = config, state, loss, steps, rank
        self._prepare = Prepare(config)
        self._parameters = [p for p in state.model.parameters() if p.requires_grad]
        self._replays_graphs = config.step.compile == "reduce-overhead" and config.device == "cuda"

    def __call__(self, clips: Clips) -> None:
        """One step on this rank's clips of the global batch."""
        config, state = self._config, self._state
        step, parts = state.step, config.step.accumulate
        # dropout is a function of (seed, step, rank) as well: there is no random state to save
        torch.manual_seed(_fold(config.seed, step, self._rank))
        set_learning_rate(state.optimiser, self.learning_rate(step))
        state.guard.before()
        motion, static = clips.prepared if clips.prepared is not None else self._prepare(clips)
        penalise = config.method.penalises(step)
        total = 0.0
        for part in range(parts):
            loss = self._part(motion, static, clips.label, penalise, part, parts)
            total = total + loss.detach()
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

    def _part(self, motion, static, label, penalise: bool, part: int, parts: int) -> Tensor:
        if parts > 1:
            rows = slice(part * len(label) // parts, (part + 1) * len(label) // parts)
            motion, label = motion[rows], label[rows]
            static = None if static is None else static[rows]
        if self._replays_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        hold = getattr(self._loss, "no_sync", None) if part + 1 < parts else None  # gradients travel once a step
        if hold is None:
            return self._forward_backward(motion, static, label, penalise, parts)
        with hold():
            return self._forward_backward(motion, static, label, penalise, parts)

    def _forward_backward(self, motion, static, label, penalise: bool, parts: int) -> Tensor:
        loss, terms = self._loss(motion, static_leaf(static, penalise), label, penalise)
        (loss / parts if parts > 1 else loss).backward()
        self._state.meter.add({"loss": loss, **terms})
        return loss.detach() / parts


def _fold(*numbers: int) -> int:
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

"""The fused boundary: the launch that computes this step's losses also makes the next step's clips.

    ordinary step:  clip_prep(frames i+1) ahead, in the loader's thread        weighted_losses(logits i) in the step
    fused step:     step_boundary(logits i, frames i+1) -> losses i, clips i+1

``StepConfig.fused_boundary`` asks for it. The numbers are those of the ordinary step to the bit. The rest of the
trainer does not know of it: ``build`` takes the two classes below in place of ``LossModule`` and ``TrainStep``.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from ..kernels import step_boundary
from ..pipeline.loading.clips import Clips
from .batch import Batch
from .loss_module import LossModule
from .passes import Kind, Pass, pass_inputs
from .step import TrainStep

MotionAndStatic = tuple[Tensor, Tensor | None]


class NextFrames(NamedTuple):
    """What the next step's clips are made from.

    Attributes:
        frames: uint8 (B,T,H,W,3), augmented.
        flip: bool (B,).
        static_index: int64 (B,).
    """

    frames: Tensor
    flip: Tensor
    static_index: Tensor


class BoundaryLosses:
    """Row losses (see ``methods.terms.RowLosses``) whose launch also makes clips, which are then in ``clips``.

    Args:
        next_frames: what to make them from.
        clip_options: options of ``kernels.clip_prep``.
    """

    def __init__(self, next_frames: NextFrames, clip_options: dict[str, Any]):
        self._next_frames, self._clip_options = next_frames, clip_options
        self.clips: MotionAndStatic | None = None

    def __call__(self, logits, target, n_motion, ce_weight, negent_weight, label_smoothing=0.0):
        """``(loss, ce, negent)``."""
        frames, flip, static_index = self._next_frames
        both = step_boundary(
            *(logits, target, n_motion, ce_weight, negent_weight, frames),
            flip=flip,
            t_idx=static_index,
            label_smoothing=label_smoothing,
            **self._clip_options,
        )
        self.clips = both.motion, both.static
        return both.loss, both.ce, both.negent


class BoundaryLossModule(LossModule):
    """A ``LossModule`` that can make the next step's clips.

    Args:
        arguments, options: as for ``LossModule``.
        clip_options: how clips are made: options of ``kernels.clip_prep``.
    """

    def __init__(self, *arguments: Any, clip_options: dict[str, Any], **options: Any):
        super().__init__(*arguments, **options)
        self.clip_options = clip_options

    def forward(  # type: ignore[override]  (it also returns the next step's clips)
        self,
        motion: Tensor | None,
        static: Tensor | None,
        target: Tensor,
        penalise: bool,
        per_sample: dict[str, Tensor] | None = None,
        kind: Kind = "all",
        next_frames: NextFrames | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], MotionAndStatic | None]:
        """As ``LossModule.forward``, and (motion, static) of the next step, or None without ``next_frames``."""
        if next_frames is None:
            return *super().forward(motion, static, target, penalise, per_sample, kind), None
        row_losses = BoundaryLosses(next_frames, self.clip_options)
        loss, terms = self._losses(row_losses, motion, static, target, penalise, per_sample, kind)
        return loss, terms, row_losses.clips


class BoundaryStep(TrainStep):
    """A ``TrainStep`` that is called with (this step's clips, the next step's)."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._ready: MotionAndStatic | None = None  # this step's clips, made by the last step's boundary
        self._next_frames: NextFrames | None = None

    def inputs(self, batches: Iterable[Clips]) -> Iterator[tuple[Clips, Clips | None]]:
        """Each batch with the one that follows it, or None."""
        iterator = iter(batches)
        clips = next(iterator, None)
        while clips is not None:
            following = next(iterator, None)
            yield clips, following
            clips = following

    def __call__(self, batch: tuple[Clips, Clips | None]) -> None:  # type: ignore[override]  (with the next step's)
        """One step, which also makes the clips of the next."""
        clips, following = batch
        # the last step makes clips that are not used: a step without would be another graph to compile
        source = clips if following is None else following
        self._next_frames = NextFrames(self._prepare.augmented(source), source.flip, source.static_index)
        super().__call__(clips)

    def _clips(self, clips: Clips) -> MotionAndStatic:
        if self._ready is None:
            return super()._clips(clips)
        self._prepare.find_people(clips)
        return self._ready

    def _forward(self, batch: Batch, step_pass: Pass) -> tuple[Tensor, dict[str, Tensor]]:
        next_frames = self._next_frames if step_pass.last else None
        loss, terms, made = self._loss_module(*pass_inputs(batch, step_pass), next_frames)
        if made is not None:
            # the next replay of a CUDA graph overwrites its outputs
            motion, still = made
            self._ready = (motion.clone(), None if still is None else still.clone()) if self._replays_graphs else made
        return loss, terms

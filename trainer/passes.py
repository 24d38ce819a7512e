"""The passes of a step, and their order: what is kept for a backward is freed before the next forward.

    loss on the motion clips:  forward, backward
    loss on the static clips:  forward, inner gradient, backward        in ``static_parts`` parts of the batch

A second view of the motion clips, where the batch has one, has a pass like the first's, and both count their shares.

The gradients are those of one backward of the sum. Keeping both graphs at once instead took 4.05 times the memory of
cross entropy on swin3d_t 32x224x224, one clip (float32, counted); in this order 3.11, and at batch 6 with three parts
1.04, with closed attention 0.59. A method without ``static_pass`` has one pass.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .batch import Batch
from .methods import Method

Kind = Literal["all", "motion", "static"]  # which losses of the method, see ``methods``


@dataclass(frozen=True)
class Pass:
    """One forward and backward.

    Attributes:
        kind: "motion", "static", or "all": what the loss module computes.
        rows: the samples that it is computed on.
        share: what the pass's loss counts: the samples' share of the batch, or that of a view.
        penalise: whether it takes the gradient penalty.
        static: whether it reads the static clips.
        last: whether no other follows in this step.
        second_view: whether it reads the motion clips' second view.
    """

    kind: Kind
    rows: slice
    share: float
    penalise: bool
    static: bool
    last: bool
    second_view: bool = False


def step_passes(
    method: Method,
    clips: int,
    penalise: bool,
    *,
    static_parts: int = 1,
    last: bool = True,
    second_share: float = 0.0,
) -> list[Pass]:
    """The passes on a batch, in order.

    Args:
        method: what is trained.
        clips: number of samples.
        penalise: whether this step takes the gradient penalty.
        static_parts: parts of the static pass, rounded up to a divisor of ``clips``: parts are of one size, so that
            they are one compiled graph.
        last: whether no other batch follows in this step.
        second_share: of the motion clips' second view in their loss; 0: there is none.
    """
    everything = slice(0, clips)
    views = [(1 - second_share, False), (second_share, True)] if second_share else [(1.0, False)]
    if not method.static_pass:
        return [
            Pass(
                "all", everything, share, penalise, method.static_in_loss, last and second == bool(second_share), second
            )
            for share, second in views
        ]
    parts = next(parts for parts in range(min(static_parts, clips), clips + 1) if clips % parts == 0)
    size = clips // parts
    motion = [Pass("motion", everything, share, False, method.static_in_loss, False, second) for share, second in views]
    return motion + [
        Pass("static", slice(first, first + size), size / clips, penalise, True, last and first + size == clips)
        for first in range(0, clips, size)
    ]


def backward_in_passes(
    loss_module: nn.Module,
    batch: Batch,
    passes: list[Pass],
    *,
    scale: float = 1.0,
    forward: Callable[[Batch, Pass], tuple[Tensor, dict[str, Tensor]]] | None = None,
    parameters: list[nn.Parameter] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the passes on a batch; gradients are added to the parameters' ``grad``.

    Args:
        loss_module: a ``LossModule``, compiled and wrapped as wanted. Under DistributedDataParallel gradients are
            averaged over processes with the step's last backward, and only then.
        batch: the samples.
        passes: see ``step_passes``.
        scale: what the gradient is multiplied by.
        forward: called with a pass's samples and the pass, instead of the loss module.
        parameters: what gradients are wanted of; by default of every leaf, the static clip itself included.

    Returns:
        ``(loss, terms)``: detached, of the batch, without ``scale``.
    """
    losses, all_terms = [], {}
    for step_pass in passes:
        some = batch if step_pass.rows == slice(0, len(batch)) else batch.select(step_pass.rows)
        with nullcontext() if step_pass.last else getattr(loss_module, "no_sync", nullcontext)():
            loss, terms = forward(some, step_pass) if forward else loss_module(*pass_inputs(some, step_pass))
            _weighted(loss, scale * step_pass.share).backward(inputs=parameters)
        losses.append(_weighted(loss.detach(), step_pass.share))
        del loss  # it keeps the pass's static clips
        for name, value in terms.items():
            part = _weighted(value, step_pass.share)
            all_terms[name] = all_terms[name] + part if name in all_terms else part
    return sum(losses[1:], losses[0]), all_terms


def pass_inputs(batch: Batch, step_pass: Pass) -> tuple[Any, ...]:
    """Arguments of a ``LossModule`` for one pass."""
    motion = batch.second_view if step_pass.second_view else batch.motion
    motion = None if step_pass.kind == "static" else motion
    static = static_leaf(batch, step_pass.penalise) if step_pass.static else None
    return motion, static, batch.target, step_pass.penalise, batch.per_sample, step_pass.kind


def static_leaf(batch: Batch, penalise: bool) -> Tensor:
    """The static clips as a pass wants them, (B,3,T,h,w): a leaf, which requires grad only where a penalty asks for it.

    All T repeats are independent variables of the penalty, so that they need memory of their own; only here, for the
    samples of one pass.
    """
    if batch.static is None:
        raise ValueError("a pass wants static clips, and the batch has none")
    motion, frame = batch.motion, batch.static.detach()
    layout = torch.channels_last_3d if motion.is_contiguous(memory_format=torch.channels_last_3d) else None
    clips = frame.expand_as(motion).contiguous(memory_format=layout or torch.contiguous_format)
    return clips.requires_grad_(penalise)


def _weighted(value: Tensor, share: float) -> Tensor:
    return value if share == 1 else value * share

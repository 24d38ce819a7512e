"""NaN and infinity: the step is skipped on all ranks alike, counted, and after too many in a row the run stops.

The decision stays on the device: torch's fused optimisers leave everything as it was where ``found_inf`` is not 0, so a
step costs no synchronisation. The host learns of it when a step is logged.
"""

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...pipeline.errors import InputError

log = logging.getLogger(__name__)

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


class NonFiniteGuard:
    """Judges each step, and undoes what a bad one leaves behind.

    Args:
        module: its floating point buffers (batch norm's running statistics) are put back after a bad step.
        device: where the flags live.
        limit: consecutive bad steps after which ``check`` raises.
        world_size: above 1, one rank's bad step is every rank's.
        lower: options of the run's method that ``check`` advises to lower, besides the learning rate.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        limit: int,
        world_size: int = 1,
        lower: tuple[str, ...] = (),
    ):
        # as integers of their own width, whose arithmetic keeps every bit, NaNs included
        self._buffers = [b.view(_INTEGERS[b.element_size()]) for b in module.buffers() if b.is_floating_point()]
        self._saved = [b.clone() for b in self._buffers]
        self._limit, self._world_size = limit, world_size
        self._advice = " or ".join(("--optimiser.lr", *lower))
        # [bad steps in all, bad steps in a row now, longest row]
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)

    def before(self) -> None:
        """Remember the buffers; call before the forward."""
        if self._buffers:
            torch.ops.aten._foreach_copy_.default(self._saved, self._buffers)

    def judge(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """1 where this step must be skipped, else 0: a float32 scalar on the device, the same on every rank.

        Args:
            loss: this rank's loss.
            grad_norm: norm of the gradient over all parameters.
        """
        bad = (~(loss.detach().isfinite() & grad_norm.isfinite())).float()
        if self._world_size > 1:
            dist.all_reduce(bad, dist.ReduceOp.MAX)
        return bad

    def update(self, optimiser: torch.optim.Optimizer, bad: Tensor) -> None:
        """Step the optimiser, or skip; then put the buffers back after a bad step, and count."""
        if bad.is_cuda and getattr(optimiser, "takes_found_inf", False):
            fused: Any = optimiser  # its type does not say what the fused forms read
            fused.grad_scale, fused.found_inf = None, bad
            fused.step()
        elif not bad.item():  # costs nothing on a CPU; apex's, and a damped SGD's first step, have no other way
            optimiser.step()
        one = (bad != 0).long()
        if self._buffers:  # buffers + bad * (saved - buffers), modulo the integers' range: three launches for all
            back = torch.ops.aten._foreach_sub.List(self._saved, self._buffers)
            torch.ops.aten._foreach_mul_.Tensor(back, one)
            torch.ops.aten._foreach_add_.List(self._buffers, back)
        row = (self.counts[1] + 1) * one
        self.counts = torch.stack([self.counts[0] + one, row, torch.maximum(self.counts[2], row)])

    def check(self, run: int | None = None) -> int:
        """How many steps were skipped so far; waits for the device.

        Args:
            run: steps of the run, after its last one: one that has skipped the whole second half is no training.

        Raises:
            InputError: too many in a row, or more than half of a run's at its end.
        """
        skipped, row, longest = self.counts.tolist()
        if run is not None and skipped:
            text = f"{skipped} of {run} steps had a loss or gradient that is not finite and were skipped"
            text += f", among them the last {row}" if row else ""
            if 2 * row > run:
                raise InputError(
                    f"{text}: the run has not learned; lower {self._advice}, or use --step.precision fp32, with "
                    "another --out"
                )
            log.warning("%s", text)
        if longest >= self._limit:
            raise InputError(
                f"{longest} steps in a row had a loss or gradient that is not finite; lower "
                f"{self._advice}, or use --step.precision fp32; the last checkpoint is intact"
            )
        return skipped

"""The learning rate of a step: a pure function of the step's number, so every rank and every restart agree."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from ...pipeline.errors import InputError
from ...pipeline.options import between, check_options


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves over the run."""

    kind: Literal["cosine", "step", "constant"] = "cosine"
    """What follows the warm-up: a half cosine down to `final`, drops at `milestones`, or nothing."""
    warmup: float = 0.05
    """Share of the run, 0..1, over which the rate rises linearly from `start` to 1 times the base rate."""
    warmup_epochs: float | None = None
    """The warm-up in epochs; given, it takes the place of `warmup`."""
    start: float = 0.0
    """Multiple of the base rate that the warm-up starts from."""
    final: float = 0.0
    """Multiple of the base rate that the cosine ends at."""
    milestones: tuple[float, ...] = (0.5, 0.75)
    """kind "step": shares of the run at which the rate is multiplied by `gamma`."""
    gamma: float = 0.1
    """kind "step": the factor of one drop."""

    def __post_init__(self):
        check_options(self, "schedule.", warmup=between(0, 1, "a share of the run", without_high=True))

    def over(self, epochs: float) -> "ScheduleConfig":
        """The same schedule of a run of so many epochs, with its warm-up as a share of the run.

        Raises:
            InputError: the warm-up is as long as the run, or longer.
        """
        if self.warmup_epochs is None:
            return self
        if not 0 <= self.warmup_epochs < epochs:
            raise InputError(
                f"schedule.warmup_epochs is {self.warmup_epochs:g}; expected at least 0 and less than the run's "
                f"{epochs:g} epochs (--schedule.warmup-epochs, --epochs)"
            )
        return replace(self, warmup=self.warmup_epochs / epochs, warmup_epochs=None)


def multiplier(config: ScheduleConfig, step: int, steps: int) -> float:
    """What the base learning rate is multiplied by in ``step`` (counted from 0) of ``steps``; of a warm-up, the share
    of the run is read (see ``ScheduleConfig.over``).

    The warm-up's first step already learns: with ``start`` 0 and w warm-up steps, step k runs at (k+1)/w.
    """
    warm = round(config.warmup * steps)
    if step < warm:
        return config.start + (1 - config.start) * (step + 1) / warm
    if config.kind == "constant":
        return 1.0
    if config.kind == "step":
        return config.gamma ** sum(step >= share * steps for share in config.milestones)
    progress = (step - warm) / max(1, steps - warm)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))

"""What a person asks before a run starts: which videos, how long, which network, where, and when it will be known."""

import logging
import os

import torch

from ...pipeline.shards.dataset_info import DatasetInfo
from ..config import TrainConfig
from ..distributed import Ranks
from ..optimisers.batch_rule import base_rate
from ..state import TrainState

log = logging.getLogger(__name__)


def say_what_is_trained(
    config: TrainConfig, data: DatasetInfo, state: TrainState, steps: int, ranks: Ranks, validation: int | None
) -> None:
    """Log a line each for data, run, network and device; the fifth, memory, is ``memory_check``'s.

    Args:
        config, data, state, steps, ranks: the run, after a checkpoint was restored.
        validation: videos of the validation set, or None.
    """
    for line in start_lines(config, data, state, steps, ranks, validation):
        log.info("%s", line)


def start_lines(
    config: TrainConfig, data: DatasetInfo, state: TrainState, steps: int, ranks: Ranks, validation: int | None
) -> list[str]:
    """The lines of ``say_what_is_trained``."""
    checked = "no validation set (--validation), so no best checkpoint"
    if validation is not None:
        checked = f"validation {config.validation}: {validation:,} videos"
    begun = f"continuing at step {state.step:,} of" if state.step else "a new run of"
    every = config.checkpoint.every
    saved = f"saved every {every:,} steps and at the end" if every else "saved at the end only"
    method = [config.method, *([config.augmentation] if config.augmentation is not None else [])]
    parameters = list(state.trained.parameters())
    count, trained = (sum(p.numel() for p in ps) for ps in (parameters, [p for p in parameters if p.requires_grad]))
    number = f"{count / 1e6:,.1f} million parameters" if count >= 1e5 else f"{count:,} parameters"
    frozen = f", {trained / count:.0%} of them trained" if trained < count else ""
    clip = (
        f"clips of {config.clip.frames} frames x {config.clip.size} x {config.clip.size}, stride {config.clip.stride}"
    )
    first, epochs = state.step + 2, "epoch" if config.epochs == 1 else "epochs"
    return [
        f"data: {config.data}: {data.samples:,} videos, {len(data.classes)} classes; {checked}",
        f"run: {config.out}: {begun} {steps:,} steps of {config.batch_size} clips ({config.epochs:g} {epochs}), "
        f"{_rate(config)}, {saved}; the time left is known after step {min(first, steps):,}, metrics after step "
        f"{min(steps, -(-(state.step + 1) // config.log.every) * config.log.every):,}",
        f"network: {config.model.name}, {number}{frozen}, from {_start(config)}; {clip}; "
        + " + ".join(type(part).__name__ for part in method),
        f"device: {_device(config, ranks)}, {config.step.precision}, "
        + ("eager" if config.step.compile == "off" else f"compiled ({config.step.compile})"),
    ]


def _start(config: TrainConfig) -> str:
    return "random weights" if config.model.weights == "none" else f"weights {config.model.weights}"


def _rate(config: TrainConfig) -> str:
    optimiser, schedule, repeats = config.optimiser, config.schedule, config.augment.repeats
    rate = f"{optimiser.name} at {base_rate(optimiser, config.batch_size):.3g}"
    if optimiser.lr_batch is not None:
        power = "" if optimiser.lr_rule == "linear" else ", by the square root"
        rate += f" ({optimiser.lr:g} for {optimiser.lr_batch:,} clips{power})"
    warm = schedule.over(config.epochs).warmup * config.epochs
    draws = f"{repeats} clips of each video, " if repeats > 1 else ""
    return f"{draws}{rate} after {warm:.3g} epochs of warm-up" if warm else f"{draws}{rate}"


def _device(config: TrainConfig, ranks: Ranks) -> str:
    if ranks.device.type == "cuda":
        name = torch.cuda.get_device_name(ranks.device)
    else:
        name = f"cpu with {len(os.sched_getaffinity(0))} cores"
    return name if ranks.world_size == 1 else f"{ranks.world_size} processes, each with {name}"

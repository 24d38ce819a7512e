"""The learning rate of a batch: one rule for one GPU or sixty-four.

A recipe gives ``lr`` for ``lr_batch`` clips in a step. With ``batch_size`` clips, over all processes, a run has

    linear   lr x (batch_size / lr_batch)         Goyal et al. 2017, arXiv 1706.02677
    root     lr x sqrt(batch_size / lr_batch)     Malladi et al. 2022, arXiv 2205.10287

linear is what the codes of VideoMAE and MViTv2 do with AdamW, as well as those of ResNets with SGD.
Epochs, warm-up in epochs and weight decay stay. The number of processes, ``step.accumulate`` and a restart with other
ones change nothing: it is the global batch that counts.
"""

import math
from dataclasses import replace

from .config import OptimiserConfig


def base_rate(config: OptimiserConfig, batch: int) -> float:
    """The base learning rate with ``batch`` clips in a step."""
    if config.lr_batch is None:
        return config.lr
    factor = batch / config.lr_batch
    return config.lr * (factor if config.lr_rule == "linear" else math.sqrt(factor))


def at_batch(config: OptimiserConfig, batch: int) -> OptimiserConfig:
    """The optimiser with the rate of ``batch`` clips in a step, for that batch."""
    return config if config.lr_batch is None else replace(config, lr=base_rate(config, batch), lr_batch=batch)

"""One recipe at several batch sizes: how the learning rate and the length of the run follow the batch.

With k times the clips in a step:

    adam, adamw, lamb   lr x sqrt(k)
    sgd                 lr x k       (Goyal et al. 2017, arXiv 1706.02677)
    epochs              x ``longer_run``, where the run is short: so that the sum of its learning rates stays

Over equal epochs a run has 1/k as many steps. By SGD's rule the sum of the learning rates stays; by the square root,
which Adam's unit-sized steps ask for (Malladi et al. 2022, arXiv 2205.10287), it falls with sqrt(k). A run of thousands
of steps has some to spare, one of hundreds has not. The schedule is in shares of the run and follows by itself, and so
does a gradient penalty, whose strength is that of every step however often it is taken.

``unstill bench batch_size`` measures what comes of it on the procedural dataset. It is a starting point, not a promise:
an adversarial loss may need more steps than this leaves it (at 8 times the batch it did, on a seed for trying out).
"""

import math
from dataclasses import replace

from .config import OptimiserConfig


def scaled_optimiser(config: OptimiserConfig, factor: float) -> OptimiserConfig:
    """The optimiser for ``factor`` times the clips in a step.

    Args:
        config: for the batch that the recipe was made for.
        factor: new batch over that one, above 0.
    """
    return replace(config, lr=config.lr * (factor if config.name == "sgd" else math.sqrt(factor)))


def longer_run(config: OptimiserConfig, factor: float) -> float:
    """What the epochs are multiplied by so that the sum of a run's learning rates stays.

    Args:
        config, factor: as in ``scaled_optimiser``.
    """
    return 1.0 if config.name == "sgd" else math.sqrt(factor)

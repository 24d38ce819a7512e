"""One recipe at several batch sizes: which constants of the optimiser follow the batch, and how.

With k times the clips in a step, over the same epochs:

    adam, adamw   lr x sqrt(k), 1 - beta x k, eps / sqrt(k), weight decay x sqrt(k)
                  (the square-root rule; Malladi et al. 2022, arXiv 2205.10287; decay so that lr x decay x steps stays)
    sgd           lr x k, weight decay as it is (Goyal et al. 2017, arXiv 1706.02677), for k up to a few dozen
    lamb          lr x sqrt(k) (You et al. 2020, arXiv 1904.00962)

The schedule is in shares of the run, so that it follows by itself; so does a gradient penalty, whose strength is that
of every step however often it is taken. ``bench/results/batch_size.json`` has what comes of it on the procedural world.
"""

import math
from dataclasses import replace

from .config import OptimiserConfig

# below it the first moment would forget within a step or two
LEAST_BETA1 = 0.5


def scaled_optimiser(config: OptimiserConfig, factor: float) -> OptimiserConfig:
    """The optimiser for ``factor`` times the clips in a step.

    Args:
        config: for the batch that the recipe was made for.
        factor: new batch over that one, above 0.
    """
    root = math.sqrt(factor)
    if config.name == "sgd":
        return replace(config, lr=config.lr * factor)
    if config.name == "lamb":
        return replace(config, lr=config.lr * root)
    first, second = config.betas
    betas = max(min(first, LEAST_BETA1), 1 - factor * (1 - first)), max(0.9, 1 - factor * (1 - second))
    return replace(
        config, lr=config.lr * root, betas=betas, eps=config.eps / root, weight_decay=config.weight_decay * root
    )

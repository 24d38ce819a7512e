"""How many cases a kernel's test takes: all of them interpreted, few on a GPU, where each compiles a kernel of its own.

UNSTILL_KERNEL_GRID=gpu     the few cases on a CPU, too
"""

import itertools
import os
from collections.abc import Sequence

import torch

FEW = torch.cuda.is_available() or os.environ.get("UNSTILL_KERNEL_GRID") == "gpu"


def every_pair(*axes: Sequence) -> list[tuple]:
    """All combinations; few: each value of each axis at least once."""
    if not FEW:
        return list(itertools.product(*axes))
    return [tuple(axis[n % len(axis)] for axis in axes) for n in range(max(map(len, axes)))]


def first(count: int, cases: Sequence) -> list:
    """All cases; few: the first ``count``."""
    return list(cases)[:count] if FEW else list(cases)

"""How many cases a kernel's test takes: all of them interpreted, few on a GPU, where each compiles a kernel of its own.

UNSTILL_KERNEL_GRID=gpu     the few cases on a CPU, too
"""

import itertools
import os
from collections.abc import Sequence

import torch

FEW = torch.cuda.is_available() or os.environ.get("UNSTILL_KERNEL_GRID") == "gpu"


def every_pair(*axes: Sequence) -> list[tuple]:
    """Each value of two axes, or of three (the middle one the shortest), with each value of every other one.

    Few: each value of each axis at least once.
    """
    if not FEW and len(axes) == 2:
        return list(itertools.product(*axes))
    if not FEW:
        first, middle, last = axes
        assert len(middle) <= min(len(first), len(last))
        both = itertools.product(range(len(first)), range(len(last)))
        return [(first[n], middle[(n + m) % len(middle)], last[m]) for n, m in both]
    return [tuple(axis[n % len(axis)] for axis in axes) for n in range(max(map(len, axes)))]


def first(count: int, cases: Sequence) -> list:
    """All cases; few: the first ``count``."""
    return list(cases)[:count] if FEW else list(cases)

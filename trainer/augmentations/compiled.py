"""Augmentations' operations on every pixel of a batch, compiled: one pass over the clips instead of one an operation.

What is compiled is a function of tensors alone. Random parameters reach it as tensors, so that no draw compiles it
again; a run's batches are all of one shape. On a CPU results are those of eager torch to the bit, but for sums over a
clip (the share of people in ActorCutMix: float32, another order). A GPU may add and multiply in one rounding.

Blends and pastes pay: on one core they take a half to a tenth of the time and cost 1 to 2 CPU-seconds of compilation; a
GPU moves a half to a sixth of the bytes. What stays eager (`bench/results/augmentations-cpu.json`, 8 clips 16x112x112):

* RandAugment's operators. Each works on the clips that drew it, and every number of clips would be another form:
  compiled, those on single pixels take 0.1 to 0.8 of the time, rotating 1.4 and equalising 1.5 times as long. They move
  most of RandAugment's bytes, so with the rest compiled it takes 0.7 of the time.
* Recast and FAME's mask: 0.9 and 0.8 of the time for 8 CPU-seconds of compilation. Their time is in matrix products,
  convolutions and sorting, which are not fused.
"""

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def compiled(function: Callable[..., Any], *, announce: bool = False) -> Callable[..., Any]:
    """The function, compiled when it is first called; a graph break is an error, as in a step.

    A second shape in one process compiles a form for every shape: dynamo counts the forms of a function over all runs
    of a process, and refuses the ninth.

    Args:
        function: of tensors and constants; nothing that it is given requires grad.
        announce: log what is compiled, and how long it may take.
    """
    import torch

    from ..compile_cache import compile_or_load, keep_compiled_steps

    keep_compiled_steps()

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        return compile_or_load(graph, inputs, {}, recompute=False, announce=announce)

    return torch.compile(function, fullgraph=True, backend=backend)

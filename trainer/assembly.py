"""A network with everything that trains it: optimiser, guard, average, loss and step."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from .boundary import BoundaryLossModule, BoundaryStep
from .config import TrainConfig
from .distributed import Ranks, wrap
from .inputs.prepare import clip_options
from .loss_module import LossModule, compile_loss
from .models.network import head_of
from .monitoring.metrics import Meter
from .optimisers.batch_rule import at_batch
from .optimisers.ema import WeightAverage
from .optimisers.factory import make_optimiser, parameter_groups
from .optimisers.nonfinite import NonFiniteGuard
from .state import TrainState
from .step import TrainStep


def assemble(
    config: TrainConfig,
    model: nn.Module,
    method_module: nn.Module | None,
    tables: dict[str, Tensor],
    ranks: Ranks,
    steps: int,
    classes: int,
    static_parts: int = 1,
) -> tuple[TrainState, TrainStep]:
    """The state of a run before its first step, and its step. Reads no file and no value of a tensor.

    Args:
        config: the run's.
        model: the network, on its device and in its dtype and layout.
        method_module: what ``method.module`` made, or None.
        tables: what ``method.tables`` returned, on the device.
        ranks: this process.
        steps: length of the run.
        classes: number of classes.
        static_parts: parts of the static pass; ``config.step.static_parts`` is not read.
    """
    head, method = head_of(model), config.method
    optimiser = at_batch(config.optimiser, config.batch_size)
    groups = parameter_groups(model, head, optimiser)
    if method_module is not None:
        groups += parameter_groups(method_module, "head", replace(optimiser, layer_decay=1.0))
    modules = nn.ModuleList([model] if method_module is None else [model, method_module])
    state = TrainState(
        model=model,
        optimiser=make_optimiser(optimiser, groups),
        guard=NonFiniteGuard(modules, ranks.device, config.max_skipped, ranks.world_size, method.lower_if_not_finite),
        meter=Meter(ranks.device, ranks.world_size),
        average=WeightAverage(model, config.step.ema) if config.step.ema else None,
        method_module=method_module,
    )
    fused = config.step.fused_boundary
    module = partial(BoundaryLossModule, clip_options=clip_options(config)) if fused else LossModule
    autocast = torch.bfloat16 if config.step.precision == "bf16" else None
    loss = module(
        *(model, method, autocast),
        head=head,
        method_module=method_module,
        closed_calls=config.step.closed_layers != "off",
    )
    # before wrapping: the gradient hooks stay outside of the graphs
    compile_loss(loss, config.step.compile, config.step.recompute, announce=ranks.first)
    wrapped = wrap(loss, ranks, all_in_last_pass=not (method.static_pass and method_module is not None))
    step = BoundaryStep if fused else TrainStep
    return state, step(config, state, wrapped, steps, ranks.rank, classes, tables, static_parts)

"""From a configuration to what a run is made of: the network, its optimiser, the step, the loader."""

import logging
import os
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from ..pipeline.errors import InputError
from ..pipeline.loading.loader import ClipLoader
from ..pipeline.loading.replay import ReplayLoader
from ..pipeline.shards.dataset_info import DatasetInfo
from .assembly import assemble
from .checkpoints.checkpoint import start_from
from .config import TrainConfig
from .distributed import Ranks
from .inputs.config import IMAGENET_MEAN, IMAGENET_STD
from .inputs.prepare import Prepare
from .known_failures import refuse_static_parts, refuse_unsupported
from .models.clip_view import add_view
from .models.closed_network import close_network
from .models.drop_path import set_drop_path
from .models.head_dropout import drop_before
from .models.huggingface import PREFIX, read_source
from .models.network import head_of, normalisation_of
from .models.position_bias import look_up_position_biases
from .models.registry import build_model
from .state import TrainState
from .step import TrainStep

log = logging.getLogger(__name__)


def with_network_facts(config: TrainConfig, classes: int) -> TrainConfig:
    """The configuration with what the network says of itself: an ``hf:`` network's architecture, and the mean and std
    that a network was made for, where the run has the defaults.

    Raises:
        InputError: the network cannot be found.
    """
    name, inputs, model = config.model.name, config.inputs, config.model
    if name.startswith(PREFIX):
        source = read_source(name, probe=model.probe != "off")
        model, own = replace(model, architecture=source.architecture), (source.mean, source.std)
    elif ":" in name:
        with torch.random.fork_rng(devices=[]):
            own = normalisation_of(build_model(name, classes))
    else:
        own = None
    if model.probe != "off" and not name.startswith(PREFIX):
        raise InputError(f"model.probe {model.probe} needs an hf: network, whose tokens are known; got {name}")
    if own is not None and (inputs.mean, inputs.std) == (IMAGENET_MEAN, IMAGENET_STD) != own:
        log.info("%s: clips are normalised as it was made for, mean %s and std %s", name, *own)
        inputs = replace(inputs, mean=own[0], std=own[1])
    return replace(config, model=model, inputs=inputs)


def build(config: TrainConfig, data: DatasetInfo, ranks: Ranks, steps: int) -> tuple[TrainState, TrainStep]:
    """The network, its optimiser, and the step that joins them; nothing is read from the run folder.

    Args:
        config: the run's.
        data: size and class names of the training set.
        ranks: this process.
        steps: length of the run.

    Raises:
        InputError: a combination that is known to train wrongly, or a file that cannot be read.
    """
    if config.augmentation is not None:
        config.augmentation.read_files(config.clip.size)
    if config.step.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses matrix products
    torch.use_deterministic_algorithms(config.step.deterministic)
    torch.backends.cudnn.benchmark = not config.step.deterministic  # shapes never change within a run
    torch.manual_seed(config.seed)  # every rank starts from the same weights
    tables = config.method.tables(config.data)
    model, method_module = build_networks(config, data, ranks.device, tables)
    refuse_static_parts(model, config.method, config.step.static_parts, config.model.name)
    tables = {name: table.to(ranks.device) for name, table in tables.items()}
    static_parts = config.step.static_parts or 1
    return assemble(config, model, method_module, tables, ranks, steps, len(data.classes), static_parts)


def build_networks(
    config: TrainConfig, data: DatasetInfo, device: torch.device, tables: dict[str, torch.Tensor]
) -> tuple[nn.Module, nn.Module | None]:
    """The network and the method's own module (or None), on the device, in training mode.

    Args:
        config, data: the run.
        device: where they go.
        tables: what ``method.tables`` returned.
    """
    model = build_model(
        *(config.model.name, len(data.classes), config.model.weights),
        frames=config.clip.frames,
        size=config.clip.size,
        architecture=config.model.architecture,
    )
    if config.model.drop_path is not None:
        set_drop_path(model, config.model.drop_path)
    refuse_unsupported(model, config.method, config.model.name)
    if config.model.head_dropout:
        drop_before(model, head_of(model), config.model.head_dropout)
    look_up_position_biases(model)
    step, penalty = config.step, config.method.twice_differentiable
    # the closed form has a right weight gradient in bf16 on every CPU; plans for a GPU are made on the device "cpu"
    bf16_on_cpu = config.device == "cpu" and step.precision == "bf16" and step.closed_conv == "auto"
    close_network(model, "on" if bf16_on_cpu else step.closed_conv, step.closed_layers, penalty=penalty)
    method_module = config.method.module(model, head_of(model), tables)
    add_view(model, config.model.view)  # not to the copies that a method makes
    if config.method.first_stage is not None:
        start_from(config.method.first_stage, model, method_module)
    form = {
        "device": device,
        "dtype": torch.float64 if config.step.precision == "fp64" else None,
        "memory_format": torch.channels_last_3d if config.step.channels_last else torch.preserve_format,
    }
    return model.to(**form).train(), None if method_module is None else method_module.to(**form).train()


def open_loader(config: TrainConfig, ranks: Ranks, start_step: int, steps: int) -> ClipLoader:
    """The loader of this rank's clips, which prepares them ahead."""
    kind = ClipLoader
    if config.replay:
        kind = partial(ReplayLoader, replay=config.replay)
        if ranks.first:
            log.warning(
                "%s: NOT A TRAINING but a measurement: the same %d batches are trained on over and over (--replay)",
                config.out,
                config.replay,
            )
    return kind(
        config.data,
        clip=config.clip,
        batch_size=config.batch_size,
        augment=config.augment,
        device=ranks.device,
        seed=config.seed,
        start_step=start_step,
        steps=steps,
        rank=ranks.rank,
        world_size=ranks.world_size,
        config=config.loader,
        bad_clips=config.out / "bad_clips.csv",
        run=config.out,
        prepare=None if config.step.fused_boundary else Prepare(config),
    )


def count_steps(config: TrainConfig, data: DatasetInfo, ranks: Ranks) -> int:
    """Steps of the run; epochs follow each other without a gap, so only the last may lack a part of a batch.

    Raises:
        InputError: the batch does not divide into the processes and parts, or the run is shorter than one batch.
    """
    parts = ranks.world_size * config.step.accumulate
    if config.batch_size % parts:
        raise InputError(
            f"batch_size {config.batch_size} does not divide into {ranks.world_size} processes x "
            f"{config.step.accumulate} parts (step.accumulate); choose a multiple of {parts}"
        )
    steps = config.total_steps(data.samples)
    if steps < 1:
        raise InputError(
            f"{config.epochs:g} times {data.samples * config.augment.repeats} clips (--epochs) are less than one batch "
            f"of {config.batch_size}; lower --batch-size or raise --epochs"
        )
    return steps

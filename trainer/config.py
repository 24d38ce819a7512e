"""The configuration of a training run: one frozen dataclass, composed of those of the components.

A recipe (see ``recipes``) is a function that returns a full one; ``--help`` shows the text below each field. What a run
was made with is written to ``config.json`` in its folder before the first step, and read back by ``from_dict``.
None of the modules imported here needs torch, so that the command line can show and check options without it.
"""

import contextlib
import dataclasses
import importlib
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..pipeline.errors import InputError
from ..pipeline.loading.device import Device
from ..pipeline.loading.loader_config import LoaderConfig
from ..pipeline.loading.sampler import AugmentConfig, ClipConfig
from ..pipeline.options import at_least, check_options, more_than
from .augmentations import Augmentation
from .checkpoints.config import CheckpointConfig
from .config_migration import migrate
from .inputs.config import FrameTransform, InputConfig
from .methods import Albar, Method
from .models.config import ModelConfig
from .monitoring.config import LogConfig
from .optimisers.config import OptimiserConfig
from .optimisers.schedule import ScheduleConfig
from .step_config import GRAPH_MODES, StepConfig

# what a resumed run may change: where things are and how they are watched, nothing that moves a weight
FREE_TO_CHANGE = (
    *("data", "out", "validation", "device", "loader", "checkpoint", "log", "max_skipped", "stop_after"),
    *("memory_check", "extend"),
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a model on a dataset of shards."""

    data: Path
    """Dataset folder made by `unstill convert`."""
    out: Path
    """Run folder: config.json, metrics.jsonl and checkpoints/. A run that was stopped continues where it was."""
    validation: Path | None = None
    """Dataset folder to score the network on at every checkpoint; `best` names the one with the highest top-1."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    method: Method = field(default_factory=Albar)
    """What is minimised."""
    augmentation: Augmentation | None = None
    """How batches are augmented (Mixup, StillMix, ...) before the method sees them; none by default."""
    clip: ClipConfig = field(default_factory=ClipConfig)
    """Shape of a clip."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How clips are varied, and which frame the static clip repeats."""
    inputs: Annotated[InputConfig, tyro.conf.arg(name="")] = field(default_factory=InputConfig)
    """How decoded frames become what the network sees."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """The update rule."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""
    step: StepConfig = field(default_factory=StepConfig)
    """How a step is computed."""
    epochs: float = 50
    """Passes over the training set; parts of one are allowed."""
    batch_size: int = 32
    """Clips in a step, over all processes together."""
    seed: int = 0
    """Of the weights, the order, the crops and dropout."""
    device: Device = "auto"
    """Where to train; cuda uses one device per process (torchrun starts several). auto: cuda where there is one."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """How hard the loader works."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When to save, what to keep, and whether to continue."""
    log: LogConfig = field(default_factory=LogConfig)
    """What is written down."""
    max_skipped: int = 25
    """Steps in a row with a loss or gradient that is not finite before the run stops; single ones are skipped."""
    stop_after: int | None = None
    """Stop after this step as if preempted; the schedule is still that of the full run."""
    extend: bool = False
    """Go on with a finished run up to `--epochs`, which may be more than it had: from there on each step has the
    learning rate that it has in a run of that length, so that a rate that had fallen to 0 rises again."""
    memory_check: Literal["on", "off"] = "on"
    """Before the first step, say how much memory it needs and what the device has, and refuse what cannot fit. off:
    start in any case."""
    replay: int = 0
    """For measuring, not for training: read only so many batches, keep them on the device, and train on them over and
    over. Its clips/s is what the step could take from an ideal loader; every record of such a run says so. 0: train."""

    def __post_init__(self):
        check_options(
            self,
            batch_size=at_least(1),
            epochs=more_than(0),
            max_skipped=at_least(1),
            replay=at_least(0, "batches to measure with, or 0 to train"),
        )
        self.schedule.over(self.epochs)
        if self.batch_size % self.augment.repeats:
            raise InputError(
                f"batch_size {self.batch_size}: not a multiple of augment.repeats {self.augment.repeats}, the clips of "
                "each video in a batch"
            )
        if self.augmentation is not None and self.augmentation.second_share and self.step.compile in GRAPH_MODES:
            raise InputError(
                f"step.compile {self.step.compile} replays CUDA graphs, which overwrite the gradients of the first "
                "view of a clip with those of the second; use --step.compile default, or --augmentation.as-filmed 0"
            )
        tells = "" if self.inputs.transform is None else self.inputs.transform.fixed_frame_tells
        if tells and self.method.static != "none" and self.augment.static_frame != "random":
            raise InputError(
                f"augment.static_frame {self.augment.static_frame}: in these videos a fixed frame gives away {tells}; "
                "use random"
            )

    def total_steps(self, samples: int) -> int:
        """Steps of the run on so many videos; epochs follow each other without a gap."""
        return int(self.epochs * samples * self.augment.repeats) // self.batch_size

    def epochs_at(self, step: int, samples: int) -> float:
        """Epochs that ``step`` steps are, on so many videos."""
        return step * self.batch_size / (samples * self.augment.repeats)


def to_dict(config: Any) -> Any:
    """Plain JSON values; a dataclass that is one of several allowed ones carries its class name as "kind".

    A ``FrameTransform``, which may be any class, carries ``module:Class``.
    """
    if dataclasses.is_dataclass(config):
        plain = {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
        kind = type(config)
        if isinstance(config, FrameTransform):
            return {"kind": f"{kind.__module__}:{kind.__qualname__}", **plain}
        return {"kind": kind.__name__, **plain} if isinstance(config, Method | Augmentation) else plain
    if isinstance(config, Path):
        return str(config)
    if isinstance(config, tuple | list):
        return [to_dict(value) for value in config]
    return config


def from_dict(plain: dict) -> TrainConfig:
    """The inverse of ``to_dict``, which also reads what version 0.1.0 wrote.

    Raises:
        InputError: an unknown field or method: it was written by another version.
    """
    return _build(TrainConfig, migrate(plain), "")


def differences(saved: TrainConfig, now: TrainConfig) -> list[str]:
    """Dotted names and both values of what differs, leaving out what a resumed run may change."""
    before, after = to_dict(saved), to_dict(now)
    return [
        line
        for name in after
        if name not in FREE_TO_CHANGE
        for line in _compare(before.get(name), after.get(name), name)
    ]


def _build(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        options = [option for option in arguments if option is not type(None)]
        if options == [FrameTransform]:
            transform = _frame_transform(str(value.get("kind")))
            return _build(transform, {k: v for k, v in value.items() if k != "kind"}, where)
        if dataclasses.is_dataclass(options[0]):
            named = {option.__name__: option for option in options}
            if value.get("kind") not in named:
                raise InputError(
                    f"config.json: {where} is of kind {value.get('kind')!r}; this version knows {', '.join(named)}"
                )
            return _build(named[value["kind"]], {k: v for k, v in value.items() if k != "kind"}, where)
        return _build_any(options, value, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {f.name for f in dataclasses.fields(kind)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise InputError(
                f"config.json: unknown field {where}{unknown[0]}; it was written by another version of unstill"
            )
        return kind(**{name: _build(hints[name], entry, f"{where}{name}.") for name, entry in value.items()})
    if origin is tuple:
        return tuple(_build(arguments[0], entry, where) for entry in value)
    if kind is Path:
        return Path(value)
    right = value in arguments if origin is Literal else _PLAIN.get(kind, lambda _: True)(value)
    if not right:
        raise InputError(f"config.json: {where.rstrip('.')} is {value!r:.80}, which it cannot be")
    return value


_PLAIN = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: type(value) is int,
    float: lambda value: type(value) in (int, float),
}


def _build_any(options: list, value: Any, where: str) -> Any:
    """The first option that the value can be."""
    for option in options[:-1]:
        try:
            return _build(option, value, where)
        except (InputError, TypeError, ValueError):
            continue
    return _build(options[-1], value, where)


def _frame_transform(path: str) -> type[FrameTransform]:
    """The class that ``module:Class`` names.

    Only modules of unstill and those that the program has imported already, so that this field runs no code of whoever
    wrote the file (``model.name`` can, see SECURITY.md).
    """
    module, _, name = path.partition(":")
    if module.startswith("unstill."):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and issubclass(found, FrameTransform)):
        raise InputError(f"config.json: inputs.transform is {path!r}; import its module first, or install what has it")
    return found


def _compare(a: Any, b: Any, where: str) -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        names = list(dict.fromkeys([*a, *b]))
        return [line for name in names for line in _compare(a.get(name), b.get(name), f"{where}.{name}")]
    return [] if a == b else [f"{where} was {a!r}, now {b!r}"]

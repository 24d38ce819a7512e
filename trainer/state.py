"""What a run needs to continue bit for bit: weights, their average, the optimiser, three counters."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .checkpoints.files import AVERAGE, TRAINING_STATE, WEIGHTS
from .monitoring.metrics import Meter
from .optimisers.ema import WeightAverage
from .optimisers.nonfinite import NonFiniteGuard


@dataclass
class TrainState:
    """A run between two steps. The data side needs no state: it is a pure function of the step.

    Attributes:
        model: the bare network.
        method_module: the method's own parameters, or None.
        optimiser: over its parameters.
        guard: counts skipped steps.
        meter: means since the last logged step.
        average: moving average of the weights, or None.
        step: steps done.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    guard: NonFiniteGuard
    meter: Meter
    average: WeightAverage | None = None
    step: int = 0
    method_module: nn.Module | None = None

    @property
    def trained(self) -> nn.Module:
        """Everything that the optimiser moves."""
        return self.model if self.method_module is None else nn.ModuleList([self.model, self.method_module])

    def snapshot(self) -> "Snapshot":
        """A copy on the same device, to be written while training goes on."""
        return Snapshot(
            weights=_copy(self.model.state_dict()),
            average=None if self.average is None else _copy(self.average.state),
            training_state=_copy(
                {
                    "step": self.step,
                    "optimiser": self.optimiser.state_dict(),
                    "meter": self.meter.state_dict(),
                    "skipped": self.guard.counts,
                    "extra": {} if self.method_module is None else self.method_module.state_dict(),
                }
            ),
        )

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint's folder, which has been verified."""
        self.model.load_state_dict(load_file(path / WEIGHTS))
        if self.average is not None:
            self.average.load(load_file(path / AVERAGE))
        saved = torch.load(path / TRAINING_STATE, map_location="cpu", weights_only=True)
        if self.method_module is not None:
            self.method_module.load_state_dict(saved["extra"])
        self.step = saved["step"]
        self.optimiser.load_state_dict(saved["optimiser"])
        self.meter.load_state_dict(saved["meter"])
        self.guard.counts = saved["skipped"].to(self.guard.counts.device)


@dataclass
class Snapshot:
    """A copied state; no other object has its tensors."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    training_state: dict

    def to_cpu(self) -> "Snapshot":
        """Bring every tensor to the host's memory."""
        return Snapshot(_to_cpu(self.weights), _to_cpu(self.average), _to_cpu(self.training_state))

    def writers(self) -> dict:
        """File name -> function that writes it at a path."""
        files = {
            WEIGHTS: lambda path: _save_tensors(self.weights, path),
            TRAINING_STATE: lambda path: torch.save(self.training_state, path),
        }
        average = self.average
        if average is not None:
            files[AVERAGE] = lambda path: _save_tensors(average, path)
        return files


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)  # safetensors knows no other layout


def _copy(value: Any) -> Any:
    return _map(value, lambda tensor: tensor.detach().clone(memory_format=torch.preserve_format))


def _to_cpu(value: Any) -> Any:
    return _map(value, lambda tensor: tensor.cpu())


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _map(entry, change) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map(entry, change) for entry in value)
    return value

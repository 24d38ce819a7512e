"""All that a run must remember to continue bit for bit: weights, their average, the optimiser, three counters."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .monitoring.metrics import Meter
from .optimisers.ema import WeightAverage
from .optimisers.nonfinite import NonFiniteGuard

WEIGHTS, AVERAGE, REST = "model.safetensors", "ema.safetensors", "state.pt"


@dataclass
class TrainState:
    """A run between two steps. The data side needs no state: it is a pure function of the step.

    Attributes:
        model: the bare network.
        extra: the method's own parameters, or None.
        optimiser: over its parameters.
        guard: counts skipped steps.
        meter: means since the last logged step.
        average: moving average of the weights, or None.
        step: steps done.
        best: highest validation score so far, or None.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    guard: NonFiniteGuard
    meter: Meter
    average: WeightAverage | None = None
    step: int = 0
    best: float | None = field(default=None)
    extra: nn.Module | None = None

    @property
    def trained(self) -> nn.Module:
        """Everything that the optimiser moves."""
        return self.model if self.extra is None else nn.ModuleList([self.model, self.extra])

    def snapshot(self) -> "Snapshot":
        """A copy on the same device, to be written while training goes on."""
        return Snapshot(
            weights=_copy(self.model.state_dict()),
            average=None if self.average is None else _copy(self.average.state),
            rest=_copy(
                {
                    "step": self.step,
                    "best": self.best,
                    "optimiser": self.optimiser.state_dict(),
                    "meter": self.meter.state_dict(),
                    "skipped": self.guard.counts,
                    "extra": {} if self.extra is None else self.extra.state_dict(),
                }
            ),
        )

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint's folder, which has been verified."""
        self.model.load_state_dict(load_file(path / WEIGHTS))
        if self.average is not None:
            self.average.load(load_file(path / AVERAGE))
        rest = torch.load(path / REST, map_location="cpu", weights_only=True)
        if self.extra is not None:
            self.extra.load_state_dict(rest["extra"])
        self.step, self.best = rest["step"], rest["best"]
        self.optimiser.load_state_dict(rest["optimiser"])
        self.meter.load_state_dict(rest["meter"])
        self.guard.counts = rest["skipped"].to(self.guard.counts.device)


@dataclass
class Snapshot:
    """A copied state; its tensors are nobody else's."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    rest: dict

    def to_cpu(self) -> "Snapshot":
        """Bring every tensor to the host's memory."""
        return Snapshot(_to_cpu(self.weights), _to_cpu(self.average), _to_cpu(self.rest))

    def writers(self) -> dict:
        """File name -> function that writes it at a path."""
        files = {
            WEIGHTS: lambda path: _save_tensors(self.weights, path),
            REST: lambda path: torch.save(self.rest, path),
        }
        if self.average is not None:
            files[AVERAGE] = lambda path: _save_tensors(self.average, path)
        return files


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)  # safetensors knows no other layout


def _copy(value):
    return _map(value, lambda tensor: tensor.detach().clone(memory_format=torch.preserve_format))


def _to_cpu(value):
    return _map(value, lambda tensor: tensor.cpu())


def _map(value, change):
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _map(entry, change) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map(entry, change) for entry in value)
    return value

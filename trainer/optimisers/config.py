"""Which optimiser a run uses."""

from dataclasses import dataclass
from typing import Literal

from ...pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Which optimiser, and its constants."""

    name: Literal["sgd", "adam", "adamw", "lamb"] = "adamw"
    """The update rule; lamb is apex's only."""
    backend: Literal["torch", "apex"] = "torch"
    """torch: torch.optim, fused on CUDA. apex: NVIDIA apex's fused kernels; needs its CUDA build (module amp_C)."""
    lr: float = 1e-4
    """Base learning rate; the schedule multiplies it."""
    weight_decay: float = 0.05
    """Weight decay: decoupled for adamw, added to the gradient for sgd and adam, to the update for lamb."""
    decay_norms: bool = True
    """Apply the weight decay to one-dimensional parameters (biases, norms) as well."""
    head_lr: float = 1.0
    """Learning rate of the classifier head as a multiple of `lr`: above 1 when only the head is new."""
    head_first: float = 0.0
    """Share of the run at whose start only the head, and what a method adds to the network, is trained."""
    momentum: float = 0.9
    """sgd: momentum."""
    nesterov: bool = False
    """sgd: Nesterov's form."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adam, adamw, lamb: decay of the two moments."""
    eps: float = 1e-8
    """adam, adamw, lamb: added to the root of the second moment."""

    def __post_init__(self):
        if self.name not in ("sgd", "adam", "adamw", "lamb"):
            raise InputError(f"optimiser.name is {self.name!r}; expected sgd, adam, adamw or lamb")
        if self.backend not in ("torch", "apex"):
            raise InputError(f"optimiser.backend is {self.backend!r}; expected torch or apex")
        if self.name == "lamb" and self.backend != "apex":
            raise InputError("optimiser.name lamb: torch has none; use --optimiser.backend apex, or adamw")
        if not 0 <= self.head_first < 1:
            raise InputError(f"optimiser.head_first is {self.head_first}; expected a share of the run, 0 to below 1")

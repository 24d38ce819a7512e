"""Which optimiser a run uses."""

from dataclasses import dataclass
from typing import Literal

from ...pipeline.errors import InputError
from ...pipeline.options import at_least, between, check_options


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Which optimiser, and its constants."""

    name: Literal["sgd", "adam", "adamw", "lamb"] = "adamw"
    """The update rule; lamb is apex's only."""
    backend: Literal["torch", "apex"] = "torch"
    """torch: torch.optim, fused on CUDA. apex: NVIDIA apex's fused kernels; needs its CUDA build (module amp_C)."""
    lr: float = 1e-4
    """Base learning rate; the schedule multiplies it."""
    lr_batch: int | None = None
    """Clips in a step that `lr` is for: with `batch_size` clips the base rate is lr x batch_size / lr_batch. By default
    `lr` is for any batch."""
    lr_rule: Literal["linear", "root"] = "linear"
    """With `lr_batch`: linear, as above (Goyal et al. 2017; recipes of AdamW use it, too), or the square root of that
    quotient (Malladi et al. 2022)."""
    weight_decay: float = 0.05
    """Weight decay: decoupled for adamw, added to the gradient for sgd and adam, to the update for lamb."""
    decay_norms: bool = True
    """Apply the weight decay to one-dimensional parameters (biases, norms) as well."""
    head_lr: float = 1.0
    """Learning rate of the classifier head as a multiple of `lr`: above 1 when only the head is new. With `head_first`
    until that ends, then 1."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each block of the network to the one before it, such as 0.75; 1: all alike."""
    head_first: float = 0.0
    """Share of the run at whose start only the head, and what a method adds to the network, is trained."""
    no_decay: tuple[str, ...] = ()
    """Parameters whose name has one of these texts in it take no weight decay, such as norm."""
    momentum: float = 0.9
    """sgd: momentum."""
    dampening: float = 0.0
    """sgd: share by which a new gradient is damped. With momentum m a steady gradient moves the weights by
    (1 - dampening) / (1 - m) times the learning rate a step: ten times at momentum 0.9, once with dampening 0.9."""
    nesterov: bool = False
    """sgd: Nesterov's form."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adam, adamw, lamb: decay of the two moments."""
    eps: float = 1e-8
    """adam, adamw, lamb: added to the root of the second moment."""

    def __post_init__(self):
        share = between(0, 1, "a share of the run", without_high=True)
        check_options(self, "optimiser.", head_first=share, dampening=between(0, 1, "a share", without_high=True))
        check_options(self, "optimiser.", layer_decay=between(0.01, 1, "a factor"))
        if self.lr_batch is not None:
            check_options(self, "optimiser.", lr_batch=at_least(1))
        if self.nesterov and self.dampening:
            raise InputError("optimiser.nesterov: Nesterov's form has no dampening; set one of the two")
        if self.name == "lamb" and self.backend != "apex":
            raise InputError("optimiser.name lamb: torch has none; use --optimiser.backend apex, or adamw")

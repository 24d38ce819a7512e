"""How a training step is computed: precision, compilation, memory. None of it changes the method."""

from dataclasses import dataclass
from typing import Literal

from ..pipeline.errors import InputError
from ..pipeline.options import at_least, between, check_options

GRAPH_MODES = ("reduce-overhead", "max-autotune")  # modes of torch.compile that replay CUDA graphs


Precision = Literal["bf16", "fp32", "fp64"]


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How a training step is computed; none of it changes the method."""

    precision: Precision = "bf16"
    """bf16: autocast of the forwards, float32 weights and penalty norm. fp64 is for checking exactness."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "default"
    """torch.compile's mode for the loss; the last two replay CUDA graphs. off: eager, the same code. Blends and
    pastes of the batch augmentation are compiled with any mode but off."""
    recompute: bool = False
    """Compiled: keep less for the backward, and compute cheap operations again there. Saves memory, may cost time."""
    channels_last: bool = False
    """Weights and clips in memory format channels_last_3d; helps convolutional networks on CUDA."""
    closed_conv: Literal["auto", "on", "off"] = "auto"
    """Convolutions whose gradient of a gradient has an ordinary shape; equal up to rounding.
    auto: where the method takes a gradient penalty, and in bf16 on a CPU, where PyTorch's weight gradient is wrong."""
    closed_layers: Literal["auto", "off", "attention", "gelu", "mlp"] = "auto"
    """Layers that recompute instead of keeping tensors for a gradient of a gradient; exact. attention: no matrix of
    tokens by tokens is kept. gelu: nor the result of gelu in an MLP. mlp: nor anything else of its hidden width, for
    more time. auto: attention where the method takes a gradient penalty and no attention has dropout."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after another, to save memory; gradients are averaged over them."""
    static_parts: int = 0
    """Parts that the static clips' pass is computed in, one after another, to save memory at no cost in operations; for
    networks without batch norm. In one part dropout and stochastic depth draw as the official code does; in several by
    sample, whatever the number of parts. 0: as few as fit into
    the device's memory, one where it is not known."""
    clip_grad: float = 0.0
    """Largest norm of the gradient over all parameters; a longer one is scaled down to it. 0: no clipping."""
    fused_boundary: bool = False
    """Make the next step's clips in the launch that computes this step's losses: the same numbers to the bit. The next
    clips then are in memory while this step's backward runs, and the loader no longer prepares them ahead."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which export and evaluation prefer; 0: none."""
    deterministic: bool = False
    """Only deterministic kernels, so that a resumed run on CUDA repeats bit by bit; slower."""

    def __post_init__(self):
        check_options(
            self,
            "step.",
            accumulate=at_least(1),
            static_parts=at_least(0),
            ema=between(0, 1, "a decay", without_high=True),
        )
        if self.accumulate > 1 and self.compile in GRAPH_MODES:
            raise InputError(
                f"step.compile {self.compile} replays CUDA graphs, which overwrite the gradients that step.accumulate "
                f"{self.accumulate} adds up; use --step.compile default"
            )
        if self.static_parts > 1 and self.compile in GRAPH_MODES:
            raise InputError(
                f"step.compile {self.compile} replays CUDA graphs, which overwrite the gradients that "
                f"step.static_parts {self.static_parts} adds up; use --step.compile default"
            )

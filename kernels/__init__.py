"""Triton kernels of the ALBAR step, as ``torch.library`` custom ops: Triton on CUDA, plain torch elsewhere."""

if __name__ == "kernels":
    # started with the repository root on sys.path, this folder would hide the published package `kernels`
    raise ImportError("this checkout hides the installed package `kernels`; start through `unstill`, or use python -P")

from .attention import attention
from .clip_prep import clip_prep
from .gelu_linear import gelu_linear
from .mlp import mlp
from .static_losses import static_losses, weighted_loss, weighted_losses
from .step_boundary import StepBoundary, step_boundary

__all__ = [
    "StepBoundary",
    "attention",
    "clip_prep",
    "gelu_linear",
    "mlp",
    "static_losses",
    "step_boundary",
    "weighted_loss",
    "weighted_losses",
]

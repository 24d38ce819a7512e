"""The loss of one batch as one module: the forwards, the inner gradient and the weighted sum.

    LossModule(model, method)(motion, static, target, penalise) -> loss, terms

It is what gets compiled (one forward and one backward graph, no graph break) and what DistributedDataParallel wraps;
the only ``backward`` is called outside. Eager and compiled are the same code; a float64 test compares them.
"""

import torch
import torch._dynamo
from torch import Tensor, nn
from torch._inductor.compile_fx import compile_fx

from ..kernels import static_losses, weighted_loss
from .known_failures import refuse_custom_functions
from .methods import Method
from .models.observed_network import ObservedNetwork


class LossModule(nn.Module):
    """A network and the loss of a method on it.

    Args:
        model: clips (B,3,T,h,w) -> logits (B,C).
        method: see ``methods``.
        autocast: dtype that the forwards run in, or None for the weights' own.
        head: name of the model's last layer, for methods that want its input.
        method_module: what ``method.module`` made; trained together with the model.
        closed_calls: see ``ObservedNetwork``.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        autocast: torch.dtype | None = None,
        *,
        head: str = "",
        method_module: nn.Module | None = None,
        closed_calls: bool = True,
    ):
        super().__init__()
        self.model = model
        self.method = method
        self.method_module = method_module
        self.network = ObservedNetwork(model, head, method_module, autocast, closed_calls)

    def forward(
        self,
        motion: Tensor,
        static: Tensor | None,
        target: Tensor,
        penalise: bool,
        per_sample: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's loss and its detached terms.

        Args:
            motion: (B,3,T,h,w), normalised.
            static: the same shape, or None for a method without static clips. With ``penalise`` a contiguous leaf that
                requires grad: dynamo takes no gradient by a tensor that has a history.
            target: int64 (B,) or soft (B,C).
            penalise: whether the method takes its gradient penalty; a Python bool, so each value compiles once.
            per_sample: more tensors with a row for each sample, by name; see ``batch.Batch``.

        Returns:
            ``(loss, terms)``: the scalar to call ``backward`` on, and detached scalars by name.
        """
        return self.method.loss(
            self.network, row_losses, motion, static, target, penalise=penalise, per_sample=per_sample
        )


def row_losses(
    logits: Tensor,
    target: Tensor,
    n_motion: int,
    ce_weight: Tensor,
    negent_weight: Tensor,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``methods.terms.RowLosses``."""
    ce, negent, _ = static_losses(logits, target, n_motion, label_smoothing)
    return weighted_loss(ce, negent, ce_weight, negent_weight), ce, negent


def compile_loss(loss_module: LossModule, mode: str, recompute: bool = False) -> None:
    """Compile the module in place; a graph break is an error, for a step in pieces has no double backward.

    Args:
        loss_module: what to compile.
        mode: "off" or a mode of torch.compile.
        recompute: see ``StepConfig``.
    """
    if mode == "off":
        return
    # lets dynamo trace torch.autograd.grad into the graph; must be set before the first compilation
    torch._dynamo.config.trace_autograd_ops = True
    options = {} if mode == "default" else torch._inductor.list_mode_options(mode, dynamic=False)
    checks = loss_module.method.twice_differentiable

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        if checks:
            refuse_custom_functions(graph)
        with torch._functorch.config.patch(aggressive_recomputation=recompute):
            return compile_fx(graph, inputs, config_patches=options)

    loss_module.compile(fullgraph=True, dynamic=False, backend=backend)


def static_leaf(static: Tensor | None, penalise: bool) -> Tensor | None:
    """The static clip as the step wants it: a leaf, which requires grad only where a penalty will ask for it."""
    if static is None:
        return None
    return static.detach().requires_grad_(penalise)

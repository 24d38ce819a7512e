"""The loss of one pass as one module: the forward, the inner gradient and the weighted sum.

    LossModule(model, method)(motion, static, target, penalise, kind="motion") -> loss, terms
    LossModule(model, method)(None, static, target, penalise, kind="static") -> loss, terms

It is what gets compiled (each kind one forward and one backward graph, no graph break) and what DistributedDataParallel
wraps; ``passes`` says in which order a step calls it and its ``backward``. Eager and compiled are the same code; a
float64 test compares them.
"""

from typing import Any, Literal

import torch
import torch._dynamo
from torch import Tensor, nn

from ..kernels import weighted_losses
from .batch import DRAWS
from .known_failures import refuse_custom_functions
from .methods import Method
from .methods.terms import RowLosses
from .models.observed_network import ObservedNetwork
from .models.sample_dropout import SampleDraws


class LossModule(nn.Module):
    """A network and the loss of a method on it.

    Attributes:
        static_draws: of the model's layers; where it is set, the kind "static" draws by ``per_sample["draws"]``.

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
        self.static_draws: SampleDraws | None = None
        self.model = model
        self.method = method
        self.method_module = method_module
        self.network = ObservedNetwork(model, head, method_module, autocast, closed_calls)

    def forward(
        self,
        motion: Tensor | None,
        static: Tensor | None,
        target: Tensor,
        penalise: bool,
        per_sample: dict[str, Tensor] | None = None,
        kind: Literal["all", "motion", "static"] = "all",
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's loss and its detached terms.

        Args:
            motion: (B,3,T,h,w), normalised; None for the kind "static".
            static: the same shape, or None for a method without static clips. With ``penalise`` a contiguous leaf that
                requires grad: dynamo takes no gradient by a tensor that has a history.
            target: int64 (B,) or soft (B,C).
            penalise: whether the method takes its gradient penalty; a Python bool, so each value compiles once.
            per_sample: more tensors with a row for each sample, by name; see ``batch.Batch``.
            kind: "motion" and "static" are the two parts of the loss of a method with ``static_pass``; "all" is their
                sum, and the only kind of any other method.

        Returns:
            ``(loss, terms)``: the scalar to call ``backward`` on, and detached scalars by name.
        """
        return self._losses(weighted_losses, motion, static, target, penalise, per_sample, kind)

    def _losses(
        self, row_losses: RowLosses, motion, static, target, penalise, per_sample, kind
    ) -> tuple[Tensor, dict[str, Tensor]]:
        method: Any = self.method  # only one with ``static_pass`` has a ``static_loss``
        common: dict[str, Any] = {"penalise": penalise, "per_sample": per_sample}
        if kind == "static":
            if self.static_draws is None:
                return method.static_loss(self.network, row_losses, static, target, **common)
            self.static_draws.keys = per_sample[DRAWS]
            loss, terms = method.static_loss(self.network, row_losses, static, target, **common)
            self.static_draws.keys = None
            return loss, terms
        loss, terms = method.loss(self.network, row_losses, motion, static, target, **common)
        if kind == "all" and method.static_pass:
            static_loss, static_terms = method.static_loss(self.network, row_losses, static, target, **common)
            return loss + static_loss, terms | static_terms
        return loss, terms


def allow_inner_gradients() -> None:
    """Set dynamo's options for graphs that contain ``torch.autograd.grad``; before the first compilation."""
    torch._dynamo.config.trace_autograd_ops = True
    # else dynamo splits the graph at DistributedDataParallel's buckets (25 MB), and the inner gradient lands in another
    # part than what it differentiates: a crash in the first step. Without the overlap of its all-reduce and backward,
    # 113 MB of gradients take about 1 ms over NVLink
    torch._dynamo.config.optimize_ddp = False


def compile_loss(loss_module: LossModule, mode: str, recompute: bool = False, *, announce: bool = False) -> None:
    """Compile the module in place; a graph break is an error, for a step in pieces has no double backward.

    Args:
        loss_module: what to compile.
        mode: "off" or a mode of torch.compile.
        recompute: see ``StepConfig``.
        announce: log what is compiled, and how long it may take.
    """
    if mode == "off":
        return
    from .compile_cache import compile_or_load, keep_compiled_steps  # inductor: 1.1 CPU-seconds of a start of 4.9

    allow_inner_gradients()
    keep_compiled_steps()
    options = {} if mode == "default" else torch._inductor.list_mode_options(mode, dynamic=False)
    checks = loss_module.method.twice_differentiable

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        if checks:
            refuse_custom_functions(graph)
        return compile_or_load(graph, inputs, options, recompute=recompute, announce=announce)

    loss_module.compile(fullgraph=True, dynamic=False, backend=backend)

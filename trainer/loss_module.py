"""The loss of one batch as one module: both forwards, the inner gradient and the weighted sum.

    LossModule(model, method)(motion, static, target, penalise) -> loss, terms, None

It is what gets compiled (one forward and one backward graph, no graph break) and what DistributedDataParallel wraps;
the only ``backward`` is called outside. Eager and compiled are the same code, held together by a float64 test.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch._dynamo
from torch import Tensor, nn
from torch._inductor.compile_fx import compile_fx

from ..kernels import static_losses, step_boundary, weighted_loss
from ..pipeline.errors import InputError
from .methods import Method
from .models.observed_network import ObservedNetwork

GRAPH_MODES = ("reduce-overhead", "max-autotune")  # modes of torch.compile that replay CUDA graphs


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How a training step is computed; none of it changes the method."""

    precision: Literal["bf16", "fp32", "fp64"] = "bf16"
    """bf16: autocast of the forwards, float32 weights and penalty norm. fp64 is for checking exactness."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "default"
    """torch.compile's mode for the whole loss; the last two replay CUDA graphs. off: eager, the same code."""
    recompute: bool = False
    """Compiled: keep less for the backward, and compute cheap operations again there. Saves memory, may cost time."""
    channels_last: bool = False
    """Weights and clips in memory format channels_last_3d; helps convolutional networks on CUDA."""
    closed_conv: bool = False
    """Convolutions whose gradient of a gradient has an ordinary shape, see `closed_conv.py`; equal up to rounding."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after another, to save memory; gradients are averaged over them."""
    clip_grad: float = 0.0
    """Largest norm of the whole gradient; a longer one is scaled down to it. 0: no clipping."""
    fused_boundary: bool = False
    """Make the next step's clips in the launch that computes this step's losses: the same numbers to the bit. The next
    clips then lie in memory while this step's backward runs, and the loader no longer prepares them ahead."""
    ema: float = 0.0
    """Decay of a moving average of the weights, kept beside them and preferred by export and evaluation; 0: none."""
    deterministic: bool = False
    """Only deterministic kernels, so that a resumed run on CUDA repeats bit by bit; slower."""

    def __post_init__(self):
        if self.precision not in ("bf16", "fp32", "fp64"):
            raise InputError(f"step.precision is {self.precision!r}; expected bf16, fp32 or fp64")
        if self.compile not in ("off", "default", "reduce-overhead", "max-autotune"):
            raise InputError(
                f"step.compile is {self.compile!r}; expected off, default, reduce-overhead or max-autotune"
            )
        if self.accumulate < 1:
            raise InputError(f"step.accumulate is {self.accumulate}; expected a whole number of at least 1")
        if self.accumulate > 1 and self.compile in GRAPH_MODES:
            raise InputError(
                f"step.compile {self.compile} replays CUDA graphs, which overwrite the gradients that step.accumulate "
                f"{self.accumulate} adds up; use --step.compile default"
            )
        if not 0 <= self.ema < 1:
            raise InputError(f"step.ema is {self.ema}; expected a decay in [0, 1)")


class Upcoming(NamedTuple):
    """What the next step's clips are made from, for the fused boundary.

    Attributes:
        frames: uint8 (B,T,H,W,3), augmented.
        flip: bool (B,).
        static_index: int64 (B,).
    """

    frames: Tensor
    flip: Tensor
    static_index: Tensor


class LossModule(nn.Module):
    """A network and the loss of a method on it.

    Args:
        model: clips (B,3,T,h,w) -> logits (B,C).
        method: see ``methods``.
        autocast: dtype that the forwards run in, or None for the weights' own.
        clip_options: how the fused boundary makes the next clips: options of ``kernels.clip_prep``.
        head: name of the model's last layer, for methods that want its input.
        extra: what ``method.module`` made; trained beside the model.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        autocast: torch.dtype | None = None,
        clip_options: dict[str, Any] | None = None,
        *,
        head: str = "",
        extra: nn.Module | None = None,
    ):
        super().__init__()
        self.model = model
        self.method = method
        self.extra = extra
        self.clip_options = clip_options
        self.network = ObservedNetwork(model, head, extra, autocast)

    def forward(
        self,
        motion: Tensor,
        static: Tensor | None,
        target: Tensor,
        penalise: bool,
        upcoming: Upcoming | None = None,
        side: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor | None] | None]:
        """The method's loss, its detached terms, and the next step's clips.

        Args:
            motion: (B,3,T,h,w), normalised.
            static: the same shape, or None for a method without static clips. With ``penalise`` a contiguous leaf that
                requires grad: dynamo takes no gradient by a tensor that has a history.
            target: int64 (B,) or soft (B,C).
            penalise: whether the method takes its gradient penalty; a Python bool, so each value compiles once.
            upcoming: what to make the next clips from, or None.
            side: more per-sample tensors by name, see ``methods.batch``.

        Returns:
            ``(loss, terms, clips)``: clips is (motion, static or None) of the next step, None without ``upcoming``.
        """
        clips = None

        def rows(logits, target, n_motion, ce_weight, negent_weight, label_smoothing=0.0):
            nonlocal clips
            if upcoming is None:
                ce, negent, _ = static_losses(logits, target, n_motion, label_smoothing)
                return weighted_loss(ce, negent, ce_weight, negent_weight), ce, negent
            frames, flip, static_index = upcoming
            both = step_boundary(
                *(logits, target, n_motion, ce_weight, negent_weight, frames),
                flip=flip,
                t_idx=static_index,
                label_smoothing=label_smoothing,
                **self.clip_options,
            )
            clips = both.motion, both.static
            return both.loss, both.ce, both.negent

        loss, terms = self.method.loss(self.network, rows, motion, static, target, penalise=penalise, side=side)
        return loss, terms, clips


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


def refuse_custom_functions(graph: torch.fx.GraphModule) -> None:
    """Refuse a graph that is differentiated inside and holds an ``autograd.Function``.

    torch.compile traces the Function's backward without a graph of its own, so the gradient of the inner gradient lacks
    a part: silently wrong, by half of its size in our test (torch 2.11 and 2.15), and right in eager.

    Raises:
        InputError: it does.
    """
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if "autograd_function_apply" in str(node.target):
                raise InputError(
                    "the model uses a torch.autograd.Function, through which a compiled gradient penalty is silently "
                    "wrong; use --step.compile off, make it a torch.library custom op, or train with --method.w-gp 0"
                )


def static_leaf(static: Tensor | None, penalise: bool) -> Tensor | None:
    """The static clip as the step wants it: a leaf, which requires grad only where a penalty will ask for it."""
    if static is None:
        return None
    return static.detach().requires_grad_(penalise)


def translate(error: RuntimeError, model_name: str) -> InputError | None:
    """The user's version of a failure to compile or to differentiate twice, or None for any other error."""
    inner = getattr(error, "inner_exception", None)
    if isinstance(inner, InputError):  # raised while compiling, and wrapped by dynamo
        return inner
    text = str(error)
    if ("derivative for" in text and "is not implemented" in text) or "does not support double backward" in text:
        operation = text.split("derivative for", 1)[-1].split("is not implemented")[0].strip(" '")
        return InputError(
            f"model {model_name}: {operation} has no double backward, which the gradient penalty needs; replace that "
            "operation in the model, or train without the penalty (--method.w-gp 0)"
        )
    return None

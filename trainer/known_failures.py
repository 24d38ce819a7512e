"""What is known to give wrong gradients, or to fail in the middle of a run: refused, or explained in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..pipeline.errors import InputError
from .methods import Method
from .models.sample_dropout import draws_for_batch


def refuse_unsupported(model: nn.Module, method: Method, name: str) -> None:
    """Refuse a network that cannot be trained with this method.

    Args:
        model: the network, before anything is wrapped around it.
        method: what will be trained.
        name: the model's name, for the message.

    Raises:
        InputError: with the reason, and what to use instead.
    """
    for path, module in model.named_modules():
        where = f"model {name}: {path or 'the model itself'} is a {type(module).__name__}"
        if isinstance(module, DistributedDataParallel):
            # with static_graph=True an outer gradient is silently wrong (relative error 1.07) and differs between ranks
            kind = " with static_graph=True" if module.static_graph else ""
            raise InputError(
                f"{where}{kind}; the gradient penalty is taken inside the loss, which must itself be what is wrapped: "
                "give the bare network and start with torchrun"
            )
        if isinstance(module, DataParallel):
            raise InputError(f"{where}; give the bare network and start with torchrun")
        if _is_fsdp(module):
            raise InputError(
                f"{where}; per-layer FSDP frees the weights that the inner gradient still needs, and fails with two "
                "forwards; give the bare network (models below 100 M parameters do not need FSDP)"
            )
        if method.twice_differentiable and isinstance(module, SyncBatchNorm):
            raise InputError(
                f"{where}, which has no double backward; use BatchNorm (per-process statistics), or train without the "
                "gradient penalty (--method.w-gp 0)"
            )


def refuse_static_parts(model: nn.Module, method: Method, parts: int, name: str) -> None:
    """Refuse to compute the static pass in parts where that would change the numbers.

    Args:
        model: the network.
        method: what will be trained.
        parts: number of parts.
        name: the model's name, for the message.

    Raises:
        InputError: the network takes statistics of the batch or draws for it, or the method has no static pass.
    """
    if parts > 1 and (reason := why_not_in_parts(model, method, name)):
        raise InputError(f"step.static_parts {parts}: {reason}; use --step.static-parts 1")


def why_not_in_parts(model: nn.Module, method: Method, name: str) -> str | None:
    """Why the static pass cannot be computed in parts of the batch; None: it can.

    Args:
        model: the network.
        method: what will be trained.
        name: the model's name, for the reason.
    """
    if not method.static_pass:
        return "this method has no pass for static clips alone"
    path = next((path for path, module in model.named_modules() if isinstance(module, _BatchNorm)), None)
    if path is not None:
        return f"model {name}: {path} is a batch norm, whose statistics are taken over all static clips"
    path = draws_for_batch(model)
    if path is not None:
        return f"model {name}: {path} draws random numbers for the batch and not for each sample"
    return None


def refuse_custom_functions(graph: torch.fx.GraphModule) -> None:
    """Refuse a graph that is differentiated inside and contains an ``autograd.Function``.

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


@contextmanager
def double_backward_errors(model_name: str) -> Iterator[None]:
    """Inside, a failure to compile or to differentiate twice is an InputError that names the operation.

    Raises:
        InputError: see ``translate``; every other error passes unchanged.
    """
    try:
        yield
    except RuntimeError as error:
        if known := translate(error, model_name):
            raise known from error
        raise


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


def _is_fsdp(module: nn.Module) -> bool:
    # by name: importing either class loads all of FSDP, and the second kind is a class made for each layer type
    return any(kind.__name__ in ("FSDPModule", "FullyShardedDataParallel") for kind in type(module).__mro__)

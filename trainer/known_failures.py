"""Refusals at start-up: combinations that are known to give wrong gradients, or to fail in the middle of a run."""

from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..pipeline.errors import InputError
from .methods import Method


def refuse_unsupported(model: nn.Module, method: Method, name: str) -> None:
    """Look for what cannot be trained with this method.

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


def _is_fsdp(module: nn.Module) -> bool:
    # by name: importing either class loads all of FSDP, and the second kind is a class made for each layer type
    return any(kind.__name__ in ("FSDPModule", "FullyShardedDataParallel") for kind in type(module).__mro__)

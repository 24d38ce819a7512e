"""Optimisers by name: torch's own (fused), and NVIDIA apex's where its CUDA build is present."""

import torch
from torch import nn

from ...pipeline.errors import InputError
from .config import OptimiserConfig
from .layer_decay import layer_scales


def parameter_groups(model: nn.Module, head: str, config: OptimiserConfig) -> list[dict]:
    """Split the trainable parameters by learning rate and weight decay; each group keeps its ``lr_scale``, and its
    ``alone_scale`` for the steps in which the head is trained alone.

    Args:
        model: the network.
        head: name prefix of the classifier's parameters.
        config: ``head_lr``, ``layer_decay``, ``head_first``, ``decay_norms``, ``no_decay``,
            ``weight_decay`` are read.
    """
    layers = layer_scales(model, config.layer_decay)
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            new = bool(head) and name.startswith(head + ".")
            decays = (config.decay_norms or p.ndim > 1) and not any(text in name for text in config.no_decay)
            decay = config.weight_decay if decays else 0.0
            scale = (config.head_lr if new else 1.0) * layers[name]
            if config.head_first:
                groups.setdefault((layers[name], decay, scale if new else 0.0), []).append(p)
            else:
                groups.setdefault((scale, decay, scale), []).append(p)
    return [
        {"params": params, "lr": config.lr * scale, "lr_scale": scale, "weight_decay": decay, "alone_scale": alone}
        for (scale, decay, alone), params in groups.items()
    ]


def make_optimiser(config: OptimiserConfig, groups: list[dict]) -> torch.optim.Optimizer:
    """Build the optimiser over parameter groups.

    Raises:
        InputError: backend apex was asked for, but NVIDIA's CUDA build of it is not there.
    """
    if config.name == "sgd":
        options = {"momentum": config.momentum, "nesterov": config.nesterov, "dampening": config.dampening}
    else:
        options = {"betas": config.betas, "eps": config.eps}
    if config.backend == "apex":
        fused = _apex_optimisers()
        name = {"sgd": "FusedSGD", "adam": "FusedAdam", "adamw": "FusedAdam", "lamb": "FusedLAMB"}[config.name]
        if name == "FusedAdam":
            options["adam_w_mode"] = config.name == "adamw"  # apex's default is AdamW under the name Adam
        return getattr(fused, name)(groups, lr=config.lr, **options)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    # fused on the CPU too: one pass over the parameters, and the same `found_inf` contract as on CUDA
    optimiser = kind(groups, lr=config.lr, fused=True, **options)
    if config.name == "sgd" and config.momentum and config.dampening:
        # torch does not damp the first step, which no buffer from the start can give: until one was taken the host
        # decides, and waits; then the device does
        optimiser.register_step_post_hook(_take_found_inf)
        return optimiser
    if config.name == "sgd" and config.momentum:
        # torch leaves the buffer uninitialised when its first step is skipped by found_inf; from zero, step 1 is equal
        for group in groups:
            for p in group["params"]:
                optimiser.state[p]["momentum_buffer"] = torch.zeros_like(p)
    optimiser.takes_found_inf = True  # read by nonfinite.NonFiniteGuard
    return optimiser


def _take_found_inf(optimiser, *_) -> None:
    optimiser.takes_found_inf = True


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float, *, head_alone: bool = False) -> None:
    """Set the learning rate of this step; each group runs at its ``lr_scale`` times it.

    While the head is trained alone it is the ``alone_scale``, 0 but for the head. At rate 0 a group's weights stay to
    the bit, while its moments and batch statistics already follow the data.
    """
    for group in optimiser.param_groups:
        group["lr"] = lr * group["alone_scale" if head_alone else "lr_scale"]


def _apex_optimisers():
    # `apex` on the package index is another project, and NVIDIA's pure Python part imports without its kernels:
    # only amp_C, its CUDA extension, proves that the fused optimisers will run
    try:
        import amp_C  # noqa: F401  # pyright: ignore[reportMissingImports]  (optional)
        from apex import optimizers  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "optimiser.backend apex needs NVIDIA apex built with its CUDA extension (module amp_C), which is not "
            "installed; build it from github.com/NVIDIA/apex with APEX_CUDA_EXT=1, or use --optimiser.backend torch"
        ) from None
    return optimizers

"""Which layers of a network become ops with closed first and second derivatives, see ``kernels``.

All are exact. A gradient penalty through the closed layers keeps fewer tensors, and computes some of them again. ALBAR,
one clip of 16x224x224 (MViT) or 32x224x224, float32, the motion loss's backward before the static pass, counted, over
plain cross entropy:

    memory, operations    off           attention     gelu          mlp
    swin3d_t              3.11, 3.21    1.37, 3.45    1.01, 3.53    0.74, 4.04
    mvit_v2_s             2.43, 2.55    1.69, 3.03    1.38, 3.09    1.13, 3.45
    mvit_v1_b             2.60, 2.86    1.80, 3.07    1.45, 3.15    1.18, 3.52
"""

from typing import Literal, get_args

from torch import nn
from torchvision.models.video.mvit import MultiscaleAttention
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

from ...pipeline.errors import InputError
from .closed_attention import ClosedMultiheadAttention, ClosedMultiscaleAttention, ClosedWindowAttention
from .closed_conv import close_convolutions
from .closed_mlp import ClosedGeluMLP, ClosedMLP, is_mlp, largest_dropout
from .position_bias import LookedUpBiasAttention

Switch = Literal["auto", "on", "off"]
ClosedLayers = Literal["off", "attention", "gelu", "mlp"]
_ATTENTIONS = {
    ShiftedWindowAttention3d: ClosedWindowAttention,
    LookedUpBiasAttention: ClosedWindowAttention,
    MultiscaleAttention: ClosedMultiscaleAttention,
    nn.MultiheadAttention: ClosedMultiheadAttention,
}
_MLPS = {"gelu": ClosedGeluMLP, "mlp": ClosedMLP}


def close_network(
    model: nn.Module, convolutions: Switch, layers: ClosedLayers | Literal["auto"], *, penalty: bool
) -> ClosedLayers:
    """Replace layers in place, as the options ``step.closed_conv`` and ``step.closed_layers`` say.

    Args:
        model: the network.
        convolutions: auto: on with ``penalty``.
        layers: see ``close_layers``; auto: attention with ``penalty``, but off where an attention has dropout.
        penalty: whether a gradient of a gradient will be taken.

    Returns:
        What ``layers`` came to.

    Raises:
        InputError: layers that were named have dropout inside.
    """
    if convolutions == "on" or (convolutions == "auto" and penalty):
        close_convolutions(model)
    if layers == "auto":
        layers = "attention" if penalty and can_close(model, "attention") else "off"
    close_layers(model, layers)
    return layers


def close_layers(model: nn.Module, layers: ClosedLayers) -> int:
    """Replace layers in place; parameters and buffers keep their names and shapes.

    Args:
        model: any network; what is replaced are attentions of torchvision's Video Swin and MViT,
            ``nn.MultiheadAttention``, and MLPs of torchvision or ``nn.Sequential`` (linear, gelu, linear).
        layers: off; attention; gelu: also gelu and the linear layer after it; mlp: also whole MLPs.

    Returns:
        How many were replaced.

    Raises:
        InputError: one of them has dropout inside.
    """
    if layers not in get_args(ClosedLayers):
        raise InputError(f"closed layers are {layers!r}; expected one of {', '.join(get_args(ClosedLayers))}")
    if layers == "off":
        return 0
    chosen = [(path, module, _replacement(module, layers)) for path, module in model.named_modules()]
    chosen = [found for found in chosen if found[2] is not None]
    for path, module, _ in chosen:  # all are checked before one is changed
        _refuse_dropout(path, module)
    for _, module, replacement in chosen:
        module.__class__ = replacement
    return len(chosen)


def can_close(model: nn.Module, layers: ClosedLayers) -> bool:
    """Whether ``close_layers`` would not refuse."""
    try:
        for path, module in model.named_modules():
            if _replacement(module, layers) is not None:
                _refuse_dropout(path, module)
    except InputError:
        return False
    return True


def _replacement(module: nn.Module, layers: ClosedLayers) -> type[nn.Module] | None:
    if layers in _MLPS and is_mlp(module):
        return _MLPS[layers]
    return _ATTENTIONS.get(type(module))


def _refuse_dropout(path: str, module: nn.Module) -> None:
    if isinstance(module, nn.Sequential):
        probability = largest_dropout(module)
    elif isinstance(module, ShiftedWindowAttention3d):
        probability = module.attention_dropout
    else:
        probability = getattr(module, "dropout", 0.0)
    if probability:
        raise InputError(
            f"model: {path or 'the model itself'} ({type(module).__name__}) has dropout {probability} inside, which "
            "its closed form has not; set it to 0, or use --step.closed-layers off"
        )

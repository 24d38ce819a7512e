"""MLPs of a network over ``kernels.gelu_linear`` or ``kernels.mlp``, which keep less for a gradient of a gradient."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vision_transformer import MLPBlock
from torchvision.ops.misc import MLP

from ...kernels.gelu_linear import gelu_linear
from ...kernels.mlp import mlp


class ClosedGeluMLP(nn.Sequential):
    """Linear, gelu, linear, of which gelu and the second are one op; same parameters, equal up to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """(...,C) -> (...,D)."""
        first, second = linear_layers(self)
        return gelu_linear(F.linear(input, first.weight, first.bias), second.weight, second.bias)


class ClosedMLP(nn.Sequential):
    """Linear, gelu, linear as one op; same parameters, equal up to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        """(...,C) -> (...,D)."""
        first, second = linear_layers(self)
        return mlp(input, first.weight, first.bias, second.weight, second.bias)


def linear_layers(module: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    """The two linear layers of an MLP."""
    first, second = (layer for layer in module if isinstance(layer, nn.Linear))
    return first, second


def is_mlp(module: nn.Module) -> bool:
    """Whether a module is linear, gelu (not its tanh form), linear, with or without dropout after each."""
    if not isinstance(module, nn.Sequential) or type(module) not in (nn.Sequential, MLP, MLPBlock):
        return False
    layers = [layer for layer in module if not isinstance(layer, nn.Dropout | nn.Identity)]
    if [type(layer) for layer in layers] != [nn.Linear, nn.GELU, nn.Linear]:
        return False
    gelu = layers[1]
    return isinstance(gelu, nn.GELU) and gelu.approximate == "none" and isinstance(module[0], nn.Linear)


def largest_dropout(module: nn.Sequential) -> float:
    """The largest dropout probability in an MLP."""
    return max((layer.p for layer in module if isinstance(layer, nn.Dropout)), default=0.0)

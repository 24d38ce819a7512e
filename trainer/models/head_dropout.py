"""Dropout before the last layer of a network that has none there."""

import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.errors import InputError


class DroppedLinear(nn.Linear):
    """A linear layer that drops inputs in training; its parameters have the names and the shape of ``nn.Linear``'s."""

    rate = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """(B,D) -> (B,C)."""
        return super().forward(F.dropout(input, self.rate, self.training))


def drop_before(model: nn.Module, head: str, rate: float) -> None:
    """Let the layer ``head`` of a network drop its inputs in training, with this probability.

    Raises:
        InputError: the layer is not known, or not linear.
    """
    layer = model.get_submodule(head) if head else None
    if type(layer) is not nn.Linear:
        raise InputError("model.head_dropout needs a named model with a linear last layer; set it to 0")
    layer.__class__ = DroppedLinear
    assert isinstance(layer, DroppedLinear)
    layer.rate = rate

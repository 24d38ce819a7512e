"""The network as methods see it: logits in the run's precision, and on request the features that its head sees."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...pipeline.errors import InputError
from .closed_attention import ClosedCalls


class ObservedNetwork:
    """Calls a network; has no parameters of its own.

    Args:
        model: clips (B,3,T,h,w) -> logits (B,C).
        head: name of its last layer; where it is empty, asking for features is an error.
        method_module: the method's own module. Features can be had of those of its children, too, that are networks
            like the model.
        autocast: dtype that the forwards run in, or None for the weights' own.
        closed_calls: where a forward must be twice differentiable, ``F.scaled_dot_product_attention`` is the closed
            attention; else PyTorch's math kernel, which keeps matrices of tokens by tokens.
    """

    def __init__(
        self,
        model: nn.Module,
        head: str,
        method_module: nn.Module | None,
        autocast: torch.dtype | None,
        closed_calls: bool = True,
    ):
        self.method_module = method_module
        self._model, self._head, self._autocast, self._closed_calls = model, head, autocast, closed_calls
        self._watching, self._seen = False, []
        if method_module is not None and head:  # now: torch.compile cannot trace the making of a hook
            for module in (model, *method_module.children()):
                if type(module) is type(model):
                    module.get_submodule(head).register_forward_pre_hook(self._watch)

    def __call__(self, clips: Tensor, *, twice_differentiable: bool = False) -> Tensor:
        """Logits (B,C) of at least float32.

        Args:
            clips: (B,3,T,h,w).
            twice_differentiable: keep to operations that have a double backward, which fused attention has not.
        """
        math = sdpa_kernel(SDPBackend.MATH) if twice_differentiable else nullcontext()
        closed = ClosedCalls() if twice_differentiable and self._closed_calls else nullcontext()
        with math, closed, self._lower(clips):
            z = self._model(clips)
        return at_least_float32(z)

    def with_features(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,C) and the input of the head (B,D), averaged over time and place where the head is a convolution.

        Raises:
            InputError: the model's head is not known.
        """
        return self.features_of(self._model, clips)

    def features_of(self, module: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
        """``with_features`` of another network with the model's layers."""
        known_head(self._head)
        self._watching = True
        with self._lower(clips):
            z = module(clips)
        self._watching = False
        features = self._seen.pop()
        if features.ndim == 3:  # tokens (B,N,D) before a linear layer
            features = features.mean(1)
        elif features.ndim > 3:
            features = features.flatten(2).mean(2)
        return at_least_float32(z), at_least_float32(features)

    def _watch(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._watching:
            self._seen.append(inputs[0])

    def _lower(self, clips: Tensor):
        # around the forward only: an inner gradient replays each operation in the dtype it ran in
        return nullcontext() if self._autocast is None else torch.autocast(clips.device.type, self._autocast)


def known_head(head: str) -> str:
    """``head``, or an error where it is empty."""
    if not head:
        raise InputError("this method needs a model whose last layer is known; use one of the named models")
    return head


def feature_width(model: nn.Module, head: str) -> int:
    """D, the number of features that the head sees."""
    layer = model.get_submodule(known_head(head))
    if isinstance(layer, nn.Linear):
        return layer.in_features
    assert isinstance(layer, nn.Conv3d), "the head of a named model is linear or a convolution"
    return layer.in_channels


def at_least_float32(value: Tensor) -> Tensor:
    """The same value, float64 or float32."""
    return value if value.dtype == torch.float64 else value.float()

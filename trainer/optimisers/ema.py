"""An exponential moving average of the weights."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """average <- decay * average + (1 - decay) * weights, after every step; buffers are copied.

    Args:
        module: the network that is averaged.
        decay: in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self._module = module
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        now = self._module.state_dict()
        parameters = {name for name, _ in self._module.named_parameters()}
        average = [self.state[name] for name in now if name in parameters]
        weights = [now[name] for name in now if name in parameters]
        torch._foreach_lerp_(average, weights, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]  (no other form)
        for name, value in now.items():
            if name not in parameters:
                self.state[name].copy_(value)

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved average."""
        for name, value in self.state.items():
            value.copy_(state[name])

"""An exponential moving average of the weights."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """average <- decay * average + (1 - decay) * weights, after every step; buffers are copied.

    Args:
        module: the network that is averaged; its tensors may change, but not be replaced by others.
        decay: in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        now = module.state_dict()
        self.state = {name: value.detach().clone() for name, value in now.items()}
        parameters = {name for name, _ in module.named_parameters()}
        self._averaged = [(self.state[name], now[name]) for name in now if name in parameters]
        self._copied = [(self.state[name], now[name]) for name in now if name not in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now; a few launches, whatever the number of tensors."""
        average, now = map(list, zip(*self._averaged, strict=True))
        torch._foreach_lerp_(average, now, 1 - self.decay)
        if self._copied:
            copies, now = map(list, zip(*self._copied, strict=True))
            torch._foreach_copy_(copies, now)

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved average."""
        for name, value in self.state.items():
            value.copy_(state[name])

"""An exponential moving average of the weights."""

import torch
from torch import Tensor, nn

_lerp, _copy = torch.ops.aten._foreach_lerp_, torch.ops.aten._foreach_copy_


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
        averaged, copied = parameters & now.keys(), now.keys() - parameters
        self._averages = [self.state[name] for name in now if name in averaged]
        self._weights = [now[name] for name in now if name in averaged]
        self._copies = [self.state[name] for name in now if name in copied]
        self._buffers = [now[name] for name in now if name in copied]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now; a few launches, whatever the number of tensors."""
        _lerp(self._averages, self._weights, 1 - self.decay)
        if self._buffers:
            _copy(self._copies, self._buffers)

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved average."""
        for name, value in self.state.items():
            value.copy_(state[name])

"""The score of a run while it trains: top-1 on a validation set, by which ``best`` is chosen."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .config import TrainConfig
from .evaluation.config import EvaluateOptions
from .evaluation.evaluate import Subject, predict
from .state import TrainState


class Averaged(nn.Module):
    """A network that computes with the moving average of its weights.

    Args:
        model: the network.
        weights: name -> tensor, all of its parameters and buffers.
    """

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]):
        super().__init__()
        self.model, self._weights = model, weights

    def forward(self, clips: Tensor) -> Tensor:
        """As ``model``."""
        return functional_call(self.model, self._weights, (clips,))


@dataclass(frozen=True)
class Validator:
    """Evaluates on the dataset ``config.validation``: one view a video, from its middle.

    Attributes:
        config: the run's; clip shape and normalisation are those of training.
        classes: class names of the training set.
    """

    config: TrainConfig
    classes: tuple[str, ...]

    def __call__(self, model: nn.Module, step: int) -> float:
        """Top-1 accuracy in percent.

        Raises:
            InputError: no dataset there, or it has a class that the training set has not.
        """
        config = self.config
        subject = Subject("run", model, self.classes, config.clip, config.inputs.mean, config.inputs.std)
        options = EvaluateOptions(batch_size=config.batch_size, device=config.device, loader=config.loader)
        assert config.validation is not None, "a validator is made for a run that has a validation set"
        found = predict([subject], config.validation, {"validation": lambda frames, keys: frames}, options)
        predictions = found["run", "validation"]
        return 100 * float((predictions.predicted == predictions.labels).mean())


def scored_model(state: TrainState) -> nn.Module:
    """The network that is scored: with the moving average of its weights where there is one, in evaluation mode."""
    model = state.model if state.average is None else Averaged(state.model, state.average.state)
    return model.eval()


@torch.no_grad()
def score(state: TrainState, validator: Callable[[nn.Module, int], float]) -> tuple[float, bool]:
    """Score the state, and remember the highest score in it.

    Args:
        state: the run; its network is in training mode again afterwards.
        validator: called with (network, steps done), returns the score.

    Returns:
        ``(score, best)``: best is whether none was higher before.
    """
    value = validator(scored_model(state), state.step)
    state.model.train()
    best = state.best is None or value > state.best
    state.best = value if best else state.best
    return value, best

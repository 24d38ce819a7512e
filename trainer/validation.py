"""The score of a run while it trains: top-1 on a validation set, by which ``best`` is chosen."""

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..pipeline.errors import InputError
from .checkpoints.checkpoint import Checkpointer
from .config import TrainConfig
from .distributed import Ranks
from .evaluation.config import EvaluateOptions
from .evaluation.evaluate import check_dataset, predict
from .evaluation.subject import Subject
from .monitoring.run_monitor import RunMonitor
from .state import TrainState

log = logging.getLogger(__name__)

# of the validation videos, before a score is given up: one damaged video must not end a run, nor stay without a score
MOST_BAD = 0.1


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
    """Evaluates on the dataset ``config.validation``: one view a video, from its middle, divided among the ranks.

    Attributes:
        config: the run's; clip shape, normalisation and precision are those of training.
        classes: class names of the training set.
        ranks: this process.
        times: how often it will be called, for the choice whether compiling the network pays.
        give_up: asked between batches; when it says so, the score is given up.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    ranks: Ranks
    times: int = 1
    give_up: Callable[[], bool] = lambda: False

    def check(self) -> int:
        """Open the dataset as a call will; returns its number of videos.

        Raises:
            InputError: no dataset there, none that this device decodes, or one with a class that training has not.
        """
        return check_dataset(self._subject(nn.Identity()), self._dataset, self._options, self.ranks)

    def __call__(self, model: nn.Module, step: int) -> float:
        """Top-1 accuracy in percent; on all ranks alike.

        Raises:
            InputError: the dataset cannot be read, too many videos are damaged, or the network's logits are not finite.
        """
        clips = {"validation": lambda frames, keys: frames}
        found = predict(
            [self._subject(model)],
            self._dataset,
            clips,
            self._options,
            ranks=self.ranks,
            uses=self.times,
            give_up=self.give_up,
        )
        predictions = found["run", "validation"]
        return 100 * float((predictions.predicted == predictions.labels).mean())

    def _subject(self, model: nn.Module) -> Subject:
        config = self.config
        normalisation = config.inputs.mean, config.inputs.std
        return Subject("run", model, self.classes, config.clip, *normalisation, precision=config.step.precision)

    @property
    def _dataset(self) -> Path:
        assert self.config.validation is not None, "a validator is made for a run that has a validation set"
        return self.config.validation

    @property
    def _options(self) -> EvaluateOptions:
        config = self.config
        most_bad = MOST_BAD if config.loader.max_bad_fraction is None else config.loader.max_bad_fraction
        return EvaluateOptions(
            batch_size=config.batch_size,
            device=config.device,
            loader=replace(config.loader, max_bad_fraction=most_bad),
        )


class Scoring:
    """Scores a run's checkpoints once they are saved, and points ``best`` at the highest. A failure is a warning.

    Args:
        state: the run.
        validate: called with (network, steps done), returns the score; on every rank.
        saver: of its checkpoints.
        metrics: metrics.jsonl, where the scores of earlier checkpoints are.
    """

    def __init__(
        self, state: TrainState, validate: Callable[[nn.Module, int], float], saver: Checkpointer, metrics: Path
    ):
        self._state, self._validate, self._saver = state, validate, saver
        self._scores = {step: score for step, score in read_scores(metrics).items() if step <= state.step}
        # one object for the run: it may be compiled
        self._network = state.model if state.average is None else Averaged(state.model, state.average.state)

    @property
    def missing(self) -> bool:
        """Whether the state, which was restored from a checkpoint, has no score: the run was stopped before."""
        return self._state.step not in self._scores

    @torch.no_grad()
    def __call__(self, monitor: RunMonitor) -> None:
        """Score the state, which has just been saved; the network is in training mode again afterwards."""
        state = self._state
        try:
            with monitor.scoring():
                score = self._validate(self._network.eval(), state.step)
        except Exception as error:
            if not isinstance(error, InputError):
                log.debug("scoring failed", exc_info=error)
            log.warning(
                "step %d has no validation score: %s; its checkpoint is saved, training goes on",
                *(state.step, " ".join(str(error).split())[:300] or type(error).__name__),
            )
            return
        finally:
            self._network.train()
        best = max(self._scores.values(), default=-math.inf)
        self._scores[state.step] = score
        if score > best:  # first: a run that is stopped between the two scores this checkpoint again
            self._saver.point_best(state.step)
        monitor.scored(state.step, score)


def read_scores(metrics: Path) -> dict[int, float]:
    """Step -> validation score, from a run's metrics.jsonl; empty where there is none."""
    scores = {}
    try:
        lines = metrics.read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        if isinstance(record.get("validation"), int | float):
            scores[int(record["step"])] = float(record["validation"])
    return scores

"""A model under test, and where it comes from."""

import os
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ...pipeline.loading.sampler import ClipConfig
from ..checkpoints.checkpoint import load_model, read_record
from ..checkpoints.files import AVERAGE, find_checkpoint, pointed, run_folder, step_of
from ..config import TrainConfig
from ..methods import Baseline
from ..models.network import head_of
from ..step_config import Precision


@dataclass(frozen=True)
class Origin:
    """Which run a model is of, for whatever states its results.

    Attributes:
        run: the run's folder.
        step: of the checkpoint.
        pointers: those of "latest" and "best" that name the checkpoint.
        best_step: of the checkpoint that ``best`` names, if there is one.
        network: its name.
        method: what was minimised, with the augmentation.
        average: whether the weights are their moving average.
        data: training set, with the first digits of its digest.
        precision: of training.
    """

    run: str
    step: int
    pointers: tuple[str, ...]
    best_step: int | None
    network: str
    method: str
    average: bool
    data: str
    precision: Precision

    def __str__(self) -> str:
        where = f"{self.run}, step {self.step}"
        if self.pointers:
            where += f" ({', '.join(self.pointers)})"
        if self.best_step not in (None, self.step):
            where += f"; best is step {self.best_step}"
        weights = ", moving average of the weights" if self.average else ""
        return f"{where}; {self.method}, {self.network}{weights}, {self.precision}; trained on {self.data}"


@dataclass(frozen=True)
class Subject:
    """A model under test.

    Attributes:
        name: how results call it.
        model: clips (B,3,T,h,w) -> logits (B,C), in eval mode.
        classes: C class names; those of a test set may be fewer and in another order.
        clip: shape of the clips it takes.
        mean, std: of its normalisation, in units of the full range.
        precision: that it computes in; bf16 is autocast.
        origin: the run it is of; None for any other network.
        head: name of its last layer, whose input are the features; empty where it is not known.
    """

    name: str
    model: nn.Module
    classes: tuple[str, ...]
    clip: ClipConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: Precision = "fp32"
    origin: Origin | None = None
    head: str = ""


def load_subject(run: str | os.PathLike, name: str | None = None, *, trust_model_code: bool = False) -> Subject:
    """The model of a run or checkpoint, called ``name`` or as the run's folder is.

    Args:
        run, name: see ``find_checkpoint`` for the paths (``RUN``, ``RUN/best``, ``RUN/step-500``); what to call it.
        trust_model_code: allow the run to name a ``module:function``, whose code then runs.

    Raises:
        InputError: there is no complete checkpoint, or it names code that is not trusted.
    """
    model, config, classes = load_model(run, trust_model_code=trust_model_code)
    checkpoint = find_checkpoint(Path(run))
    return Subject(
        name or run_folder(Path(run)).resolve().name,
        model.eval(),
        tuple(classes),
        config.clip,
        config.inputs.mean,
        config.inputs.std,
        config.step.precision,
        origin_of(checkpoint, config),
        head_of(model),
    )


def origin_of(checkpoint: Path, config: TrainConfig) -> Origin:
    """Where a checkpoint comes from, by its folder and its configuration."""
    steps = {name: pointed(checkpoint.parent, name) for name in ("latest", "best")}
    best = steps["best"]
    _, _, digest = read_record(checkpoint / "config.json")
    return Origin(
        run=str(run_folder(checkpoint)),
        step=step_of(checkpoint),
        pointers=tuple(name for name, path in steps.items() if path is not None and path.name == checkpoint.name),
        best_step=None if best is None else step_of(best),
        network=config.model.name,
        method=method_words(config),
        average=(checkpoint / AVERAGE).exists(),
        data=f"{config.data} ({digest[:12]})",
        precision=config.step.precision,
    )


def method_words(config: TrainConfig) -> str:
    """What a run minimises, and how its batches are augmented: ``ALBAR + SDN + StillMix``."""
    base = getattr(config.method, "base", None)  # what ALBAR is added to
    parts = [config.method, *([base] if base is not None and not isinstance(base, Baseline) else [])]
    parts += [config.augmentation] if config.augmentation is not None else []
    return " + ".join(part.title for part in parts)
